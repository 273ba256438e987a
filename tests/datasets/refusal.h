// What an Error says about a file.
#pragma once
#include <catch2/catch.hpp>
#include <string>

#include "engine/error.h"

/// What load says about the file, less its path, which must come first; one line. "no error" if it says nothing.
template <class Load>
std::string refusal(const std::string& path, Load&& load) {
  try {
    load(path);
  } catch (const fastntk::Error& e) {
    const std::string what = e.what();
    CHECK(what.starts_with(path + ": "));
    CHECK(what.find('\n') == std::string::npos);
    return what.substr(std::min(what.size(), path.size() + 2));
  }
  return "no error";
}
