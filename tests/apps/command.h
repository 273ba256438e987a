// Running the fastntk program as its users do.
#pragma once
#include <sys/wait.h>

#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <string>

namespace fastntk::test {

struct Result {
  int code = 0;
  std::string output;  // both streams
};

inline Result run(const std::string& arguments) {
  FILE* const pipe = popen((std::string(FASTNTK_PROGRAM) + " " + arguments + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  Result r;
  char buffer[4096];
  while (const size_t n = fread(buffer, 1, sizeof buffer, pipe)) r.output.append(buffer, n);
  const int status = pclose(pipe);
  r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  INFO(arguments << "\n" << r.output);
  CHECK(r.code < 128);
  return r;
}

// A failure says one line that has `words`, has this exit code, and leaves no file named `output`.
inline void check_refused(const std::string& arguments, int code, const std::string& words,
                          const std::string& output = {}) {
  const Result r = run(arguments);
  INFO(arguments << "\n" << r.output);
  CHECK(r.code == code);
  CHECK_THAT(r.output, Catch::Contains(words));
  if (!output.empty()) CHECK(!std::filesystem::exists(output));
}

}  // namespace fastntk::test
