// The threads of one block of a CUDA grid, run as fibers by one OS thread, with what they share and how they wait for
// one another. Every misuse that is undefined on a GPU ends the launch with an Error that says which thread did what
// where.
#pragma once
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "engine/emu/fiber.h"

namespace fastntk::emu {

struct Index3 {
  unsigned x = 0, y = 0, z = 0;
};
struct Extent3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Extent3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}  // NOLINT: as in CUDA
  uint64_t count() const { return uint64_t{x} * y * z; }
};

constexpr unsigned warp_lanes = 32, max_threads = 1024;
constexpr int max_declarations = 1024;
constexpr size_t max_shared_bytes = size_t{48} << 10;

/// In which order the threads of a block are run; with `warps` each warp goes as far as it can before the next one
/// does. No result may depend on it.
enum class Schedule : uint8_t { forward, reverse, shuffled, warps };
void set_schedule(Schedule schedule);

/// A grid to run: `kernel(arguments)` in each thread.
struct Job {
  void (*kernel)(void*);
  void* arguments;
  Extent3 grid, block;
};

enum class WarpOp : uint8_t { read_lane, exchange, from_below, from_above, ballot, wait };

class Block {
 public:
  Block();
  ~Block();
  /// That of this OS thread.
  static Block& current();

  /// Runs block number `number` of the grid; throws what a kernel threw, or an Error about a misuse.
  void run(const Job& job, uint64_t number);

  // Called by the threads of the block:
  void barrier(std::source_location where);
  /// `value` of the lane that the operation names (`argument`, within groups of `width` lanes), or the bits of a
  /// ballot.
  uint64_t warp(WarpOp op, uint32_t mask, uint64_t value, int argument, int width, std::source_location where);
  /// The shared array of this declaration, the same for all threads, filled with 0xFF bytes at first.
  void* shared(int declaration, size_t bytes);

 private:
  enum class Waiting : uint8_t { not_begun, nothing, barrier, warp, ended };
  struct Thread {
    Waiting waiting = Waiting::not_begun;
    Index3 index;
    Fiber* fiber = nullptr;
    std::source_location where;
    uint32_t mask = 0;
    WarpOp op = WarpOp::wait;
    int argument = 0, width = 0;
    uint64_t value = 0;
  };
  struct Shared {
    unsigned char* data = nullptr;
    size_t bytes = 0;
  };

  static void entry(void* block);
  void resume(Thread& thread);
  void wait(Waiting kind);
  void release_barrier();
  bool can_go_on(unsigned thread) const;
  void try_warp(unsigned thread);
  void end_all();
  std::string deadlock() const;
  [[noreturn]] void misuse(const std::string& what, std::source_location where);
  void note(const std::string& what);
  std::string check_zones() const;

  const Job* job_ = nullptr;
  unsigned threads_ = 0, at_barrier_ = 0, ended_ = 0;
  bool ending_ = false, failed_ = false;
  std::string error_;
  std::exception_ptr exception_;
  Thread thread_[max_threads] = {};
  unsigned order_[max_threads] = {};
  Thread* running_ = nullptr;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_, retired_;
  unsigned char* arena_ = nullptr;
  unsigned char* arena_of_block_ = nullptr;
  size_t shared_bytes_ = 0, arena_used_ = 0;
  // By declaration; no data: not used by this block so far. Plain arrays, whose elements no instrumented function
  // touches.
  Shared shared_[max_declarations] = {};
  int used_[max_declarations] = {}, used_count_ = 0;
  [[maybe_unused]] char warp_order_[max_threads / warp_lanes] = {};
};

/// A number for each declaration of a shared array.
int next_declaration();

/// Checks the limits of a launch and runs all blocks, spread over the threads of the engine.
void run_grid(const Job& job);

}  // namespace fastntk::emu
