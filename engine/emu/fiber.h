// A fiber: a stack of its own that is entered and left by switching to and from it. One OS thread runs many of them,
// one at a time. The sanitizers are told of every switch.
#pragma once
#include <cstddef>

namespace fastntk::emu {

class Fiber {
 public:
  /// `entry` runs on the fiber at the first resume() and never returns.
  Fiber(void (*entry)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Runs the fiber until it calls suspend().
  void resume();
  /// Called on the fiber: back to whoever resumed it.
  void suspend();

 private:
  struct State;
  static void begin();
  State* const state_;
};

}  // namespace fastntk::emu
