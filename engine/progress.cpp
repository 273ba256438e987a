#include "engine/progress.h"

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>

namespace fastntk {
namespace {

std::atomic<bool> quiet{false};
volatile std::sig_atomic_t interrupts = 0;

void on_signal(int signal) {
  interrupts = interrupts + 1;
  if (interrupts > 1) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void install_interrupt_handler() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}
bool interrupt_requested() { return interrupts != 0; }
void check_interrupt() {
  if (interrupt_requested())
    throw Interrupted(
        "interrupted; where something was checkpointed it is kept, and the same command continues from it");
}

Progress::Progress(std::string title, int64_t total, std::string unit)
    : title_(std::move(title)),
      unit_(std::move(unit)),
      total_(total),
      start_(std::chrono::steady_clock::now()),
      printed_(start_),
      terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (shown_) print(true);
}

void Progress::advance(int64_t count, const std::string& note) {
  const std::lock_guard lock(mutex_);
  done_ += count;
  if (!note.empty()) note_ = note;
  const auto now = std::chrono::steady_clock::now();
  if (now - printed_ < (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000))) return;
  printed_ = now;
  print(false);
}

void Progress::print(bool last) {
  if (quiet) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_) / seconds : 0;
  std::string line = fmt::format("{}: {} of {} {}, {:.4g} {}/s", title_, done_, total_, unit_, rate, unit_);
  if (last)
    line += ", " + format_duration(seconds);
  else if (rate > 0)
    line += ", " + format_duration(static_cast<double>(total_ - done_) / rate) + " left";
  if (!note_.empty()) line += ", " + note_;
  line = terminal_ ? fmt::format("\r{}\x1b[K{}", line, last ? "\n" : "") : line + "\n";
  // Work does not end because no one can be told how far it is.
  static_cast<void>(std::fputs(line.c_str(), stderr));
  static_cast<void>(std::fflush(stderr));
  shown_ = true;
}

void Progress::set_quiet(bool value) { quiet = value; }

std::string format_duration(double seconds) {
  if (seconds < 100) return fmt::format("{:.1f} s", seconds);
  const int64_t s = std::llround(seconds);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60)
                  : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string format_bytes(double bytes) {
  const char* const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, unit++;
  return unit ? fmt::format("{:.1f} {}", bytes, units[unit]) : fmt::format("{:.0f} B", bytes);
}

}  // namespace fastntk
