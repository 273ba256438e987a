// Long work: how far it is, how fast, how long it will take; and stopping it cleanly.
#pragma once
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

#include "engine/error.h"

namespace fastntk {

/// Thrown by check_interrupt() after Ctrl-C or SIGTERM. Programs exit with code 130.
class Interrupted : public Error {
 public:
  using Error::Error;
};

/// From now on Ctrl-C and SIGTERM set a flag instead of ending the process; a second one ends it at once.
void install_interrupt_handler();
bool interrupt_requested();
/// Throws Interrupted if it was requested.
void check_interrupt();

/// Progress of one piece of work on standard error: on a terminal one line that is rewritten, else a plain line every
/// ten seconds. Calls may come from several threads.
class Progress {
 public:
  /// `total` items of `unit` ("samples") will be done.
  Progress(std::string title, int64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  /// `count` more items are done; the note ("loss 0.31") is shown from now on unless empty.
  void advance(int64_t count, const std::string& note = {});
  /// No output from any Progress from now on (or again).
  static void set_quiet(bool quiet);

 private:
  void print(bool last);
  std::string title_, unit_, note_;
  int64_t total_, done_ = 0;
  std::chrono::steady_clock::time_point start_, printed_;
  bool terminal_, shown_ = false;
  std::mutex mutex_;
};

/// Seconds since construction, for reports.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// "1:02:03" or "4.2 s"
std::string format_duration(double seconds);
/// "1.4 GiB"
std::string format_bytes(double bytes);

}  // namespace fastntk
