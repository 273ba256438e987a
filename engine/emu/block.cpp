#include "engine/emu/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>

#include "engine/emu/builtins.h"
#include "engine/emu/sanitizers.h"
#include "engine/error.h"
#include "engine/parallel.h"

namespace fastntk::emu {
namespace {

struct Ended {};  // unwinds the stacks of waiting threads after an error

// Shared arrays lie one after the other with a zone behind each that nothing may write to.
constexpr size_t zone_bytes = 64, arena_bytes = size_t{256} << 10;
constexpr unsigned char zone_mark = 0xA5;
// The thread sanitizer would take two blocks that use the same bytes one after the other for a race.
constexpr size_t arenas = under_tsan ? 4096 : 1;
// Every CUDA thread then has a fiber to itself in a launch, so that none inherits what another has seen.
constexpr size_t max_retired = 2048;

std::atomic<Schedule> schedule{Schedule::forward};

std::string line_of(std::source_location where) {
  const char* const slash = std::strrchr(where.file_name(), '/');
  return fmt::format("{}:{}", slash ? slash + 1 : where.file_name(), where.line());
}
bool same_place(std::source_location a, std::source_location b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

}  // namespace

void set_schedule(Schedule wanted) { schedule = wanted; }

int next_declaration() {
  static std::atomic<int> next{0};
  return next++;
}

Block::Block() {
  void* const memory =
      mmap(nullptr, arena_bytes * arenas, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  arena_ = static_cast<unsigned char*>(memory);
}
Block::~Block() { munmap(arena_, arena_bytes * arenas); }

Block& Block::current() {
  static thread_local Block block;
  return block;
}

FASTNTK_OUTSIDE_TSAN void Block::run(const Job& job, uint64_t number) {
  job_ = &job;
  threads_ = static_cast<unsigned>(job.block.count());
  at_barrier_ = ended_ = 0;
  ending_ = failed_ = false;
  blockIdx = {static_cast<unsigned>(number % job.grid.x), static_cast<unsigned>(number / job.grid.x % job.grid.y),
              static_cast<unsigned>(number / job.grid.x / job.grid.y)};
  blockDim = job.block, gridDim = job.grid;
  const Schedule order = schedule;
  for (unsigned i = 0; i < threads_; i++) {
    thread_[i].waiting = Waiting::not_begun;
    thread_[i].index = {i % job.block.x, i / job.block.x % job.block.y, i / (job.block.x * job.block.y)};
    order_[i] = order == Schedule::reverse ? threads_ - 1 - i : i;
  }
  arena_of_block_ = arena_ + number % arenas * arena_bytes;
  FASTNTK_ASAN(__asan_unpoison_memory_region(arena_of_block_, arena_bytes));
  shared_bytes_ = arena_used_ = 0;
  while (used_count_ > 0) shared_[used_[--used_count_]].data = nullptr;
  if (retired_.size() >= max_retired) {
    idle_.insert(idle_.end(), retired_.begin(), retired_.end());
    retired_.clear();
  }

  std::minstd_rand random(static_cast<unsigned>(number) + 1);
  while (ended_ < threads_) {
    bool progress = false;
    if (order == Schedule::shuffled) std::shuffle(order_, order_ + threads_, random);
    for (unsigned k = 0; k < threads_; k++) {
      Thread& t = thread_[order_[k]];
      if (t.waiting != Waiting::not_begun && t.waiting != Waiting::nothing) continue;
      progress = true;
      resume(t);
      if (t.waiting == Waiting::ended)
        ended_++;
      else if (t.waiting == Waiting::barrier && ++at_barrier_ == threads_)
        release_barrier();
      else if (t.waiting == Waiting::warp)
        try_warp(order_[k]);
      if (failed_) end_all();
      const bool last_lane = k % warp_lanes == warp_lanes - 1 || k + 1 == threads_;
      if (order == Schedule::warps && last_lane && can_go_on(k))
        k = k / warp_lanes * warp_lanes - 1;  // its first again
    }
    if (!progress) {
      note(deadlock());
      end_all();
    }
  }
  if (!failed_)
    if (const std::string zones = check_zones(); !zones.empty()) note(zones);
  if (!failed_) return;
  // What is known of a failure was written by a fiber. A block that succeeds must not hide races with the next.
  FASTNTK_TSAN(__tsan_acquire(&error_); __tsan_acquire(job.arguments));
  const std::exception_ptr exception = std::exchange(exception_, nullptr);
  FASTNTK_TSAN(__tsan_release(&error_));
  if (exception) std::rethrow_exception(exception);
  fail("{}, in block ({}, {}, {})", error_, blockIdx.x, blockIdx.y, blockIdx.z);
}

// Whether a lane of the warp of this thread does not wait.
FASTNTK_OUTSIDE_TSAN bool Block::can_go_on(unsigned thread) const {
  const unsigned first = thread / warp_lanes * warp_lanes;
  return std::any_of(thread_ + first, thread_ + std::min(first + warp_lanes, threads_),
                     [](const Thread& t) { return t.waiting == Waiting::nothing; });
}

// ---- waiting ----

FASTNTK_OUTSIDE_TSAN void Block::barrier(std::source_location where) {
  FASTNTK_TSAN(__tsan_release(&at_barrier_));
  running_->where = where;
  wait(Waiting::barrier);
  FASTNTK_TSAN(__tsan_acquire(&at_barrier_));
}

FASTNTK_OUTSIDE_TSAN uint64_t Block::warp(WarpOp op, uint32_t mask, uint64_t value, int argument, int width,
                                          std::source_location where) {
  Thread& t = *running_;
  const auto number = static_cast<unsigned>(&t - thread_);
  if (!(mask >> (number % warp_lanes) & 1U)) misuse("a lane that its own mask does not name", where);
  t.op = op, t.mask = mask, t.value = value, t.argument = argument, t.width = width, t.where = where;
  // Of the warp operations only __syncwarp orders memory.
  FASTNTK_TSAN(if (op == WarpOp::wait) __tsan_release(&warp_order_[number / warp_lanes]));
  wait(Waiting::warp);
  FASTNTK_TSAN(if (op == WarpOp::wait) __tsan_acquire(&warp_order_[number / warp_lanes]));
  return t.value;
}

FASTNTK_OUTSIDE_TSAN void Block::wait(Waiting kind) {
  running_->waiting = kind;
  running_->fiber->suspend();
  if (ending_) throw Ended{};
}

FASTNTK_OUTSIDE_TSAN void Block::release_barrier() {
  at_barrier_ = 0;
  for (unsigned i = 0; i < threads_; i++) {
    if (!same_place(thread_[i].where, thread_[0].where))
      note(fmt::format("divergent __syncthreads: thread 0 waits at {}, thread {} at {}", line_of(thread_[0].where), i,
                       line_of(thread_[i].where)));
    thread_[i].waiting = Waiting::nothing;
  }
}

// The last lane of a mask to arrive answers all of them.
FASTNTK_OUTSIDE_TSAN void Block::try_warp(unsigned thread) {
  const Thread& me = thread_[thread];
  const unsigned first = thread / warp_lanes * warp_lanes;
  const uint32_t mask = me.mask;
  const auto named = [&](unsigned lane) { return (mask >> lane & 1U) != 0; };
  bool all_here = true;
  for (unsigned lane = 0; lane < warp_lanes; lane++) {
    if (!named(lane)) continue;
    if (first + lane >= threads_ || thread_[first + lane].waiting == Waiting::ended)
      return note(
          fmt::format("the mask at {} names lane {}, which has ended or does not exist", line_of(me.where), lane));
    const Thread& other = thread_[first + lane];
    if (other.waiting != Waiting::warp)
      all_here = false;
    else if (other.mask != mask || other.op != me.op)
      return note(fmt::format("lanes of one mask wait in different operations of the warp, at {} and {}",
                              line_of(me.where), line_of(other.where)));
  }
  if (!all_here) return;
  uint64_t in[warp_lanes] = {};
  uint64_t ballot = 0;
  for (unsigned lane = 0; lane < warp_lanes; lane++)
    if (named(lane)) in[lane] = thread_[first + lane].value, ballot |= uint64_t{in[lane] != 0} << lane;
  for (unsigned lane = 0; lane < warp_lanes; lane++) {
    if (!named(lane)) continue;
    Thread& t = thread_[first + lane];
    const int self = static_cast<int>(lane), group = self / t.width * t.width;
    int source = self;
    switch (t.op) {
      case WarpOp::read_lane:
        source = group + (t.argument & (t.width - 1));
        break;
      case WarpOp::exchange:
        source = (self ^ t.argument) < group + t.width ? self ^ t.argument : self;
        break;
      case WarpOp::from_below:
        source = self - t.argument >= group ? self - t.argument : self;
        break;
      case WarpOp::from_above:
        source = self + t.argument < group + t.width ? self + t.argument : self;
        break;
      case WarpOp::ballot:
      case WarpOp::wait:
        break;
    }
    if (!named(static_cast<unsigned>(source)))
      return note(
          fmt::format("the shuffle at {} reads lane {}, which its mask does not name", line_of(t.where), source));
    t.value = t.op == WarpOp::ballot ? ballot : in[source];
    t.waiting = Waiting::nothing;
  }
}

// ---- errors ----

FASTNTK_OUTSIDE_TSAN void Block::note(const std::string& what) {
  FASTNTK_TSAN(__tsan_acquire(&error_));
  if (!failed_) error_ = what;
  failed_ = true;
  FASTNTK_TSAN(__tsan_release(&error_));
}

void Block::misuse(const std::string& what, std::source_location where) {
  const Index3 i = running_->index;
  note(fmt::format("{}: thread ({}, {}, {}) at {}", what, i.x, i.y, i.z, line_of(where)));
  throw Ended{};
}

FASTNTK_OUTSIDE_TSAN std::string Block::deadlock() const {
  unsigned barrier = 0, warp = 0;
  std::string barrier_line, warp_line;
  for (unsigned i = 0; i < threads_; i++) {
    const Thread& t = thread_[i];
    if (t.waiting == Waiting::barrier) barrier++, barrier_line = " (" + line_of(t.where) + ")";
    if (t.waiting == Waiting::warp) warp++, warp_line = " (" + line_of(t.where) + ")";
  }
  return fmt::format("no thread can go on: {} wait in __syncthreads{}, {} in an operation of the warp{}, {} have ended",
                     barrier, barrier_line, warp, warp_line, ended_);
}

FASTNTK_OUTSIDE_TSAN void Block::end_all() {
  ending_ = true;
  for (unsigned i = 0; i < threads_; i++) {
    Thread& t = thread_[i];
    if (t.waiting == Waiting::ended) continue;
    if (t.waiting == Waiting::not_begun)
      t.waiting = Waiting::ended;
    else
      while (t.waiting != Waiting::ended) resume(t);
    ended_++;
  }
}

// ---- fibers ----

FASTNTK_OUTSIDE_TSAN void Block::resume(Thread& thread) {
  if (!thread.fiber) {
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Block::entry, this));
      idle_.push_back(fibers_.back().get());
    }
    thread.fiber = idle_.back();
    idle_.pop_back();
  }
  running_ = &thread;
  threadIdx = thread.index;
  thread.fiber->resume();
  if (thread.waiting == Waiting::ended) {
    (under_tsan ? retired_ : idle_).push_back(thread.fiber);
    thread.fiber = nullptr;
  }
}

// A fiber runs one CUDA thread after another.
FASTNTK_OUTSIDE_TSAN void Block::entry(void* block) {
  Block& b = *static_cast<Block*>(block);
  for (;;) {
    FASTNTK_TSAN(__tsan_acquire(const_cast<Job*>(b.job_)));
    try {
      b.job_->kernel(b.job_->arguments);
    } catch (const Ended&) {
    } catch (...) {
      FASTNTK_TSAN(__tsan_acquire(&b.error_));
      if (!b.exception_) b.exception_ = std::current_exception();
      b.note("an exception");
    }
    FASTNTK_TSAN(__tsan_release(b.job_->arguments));
    Fiber* const self = b.running_->fiber;
    b.running_->waiting = Waiting::ended;
    self->suspend();
  }
}

// ---- shared memory ----

FASTNTK_OUTSIDE_TSAN void* Block::shared(int declaration, size_t bytes) {
  if (declaration >= max_declarations) misuse("too many shared arrays", std::source_location::current());
  Shared& s = shared_[declaration];
  if (s.data) return s.data;
  used_[used_count_++] = declaration;
  shared_bytes_ += bytes;
  if (shared_bytes_ > max_shared_bytes)
    misuse(fmt::format("{} bytes of shared memory, over the limit of {}", shared_bytes_, max_shared_bytes),
           std::source_location::current());
  const size_t rounded = (bytes + 15) / 16 * 16;
  s.data = arena_of_block_ + arena_used_;
  s.bytes = bytes;
  arena_used_ += rounded + zone_bytes;
  if (!under_tsan) {
    std::memset(s.data, 0xFF, bytes);
    std::memset(s.data + bytes, zone_mark, rounded - bytes + zone_bytes);
  }
  FASTNTK_ASAN(__asan_poison_memory_region(s.data + bytes, rounded - bytes + zone_bytes));
  return s.data;
}

std::string Block::check_zones() const {
  if (under_tsan || under_asan) return {};
  for (const Shared& s : shared_)
    for (size_t i = 0; s.data && i < zone_bytes; i++)
      if (s.data[s.bytes + i] != zone_mark) return fmt::format("a write {} bytes behind the end of a shared array", i);
  return {};
}

// ---- grids ----

void run_grid(const Job& job) {
  const auto& [grid, block] = std::tie(job.grid, job.block);
  require(grid.count() > 0 && grid.x <= 0x7fffffffU && grid.y <= 65535 && grid.z <= 65535,
          "a grid of {} x {} x {} blocks is outside the limits of 2147483647 x 65535 x 65535", grid.x, grid.y, grid.z);
  require(block.count() > 0 && block.x <= 1024 && block.y <= 1024 && block.z <= 64 && block.count() <= max_threads,
          "a block of {} x {} x {} threads is outside the limits of 1024 x 1024 x 64, together {}", block.x, block.y,
          block.z, max_threads);
  FASTNTK_TSAN(__tsan_release(const_cast<Job*>(&job)));
  const auto blocks = static_cast<int64_t>(grid.count());
  const bool reverse = schedule == Schedule::reverse;
  parallel_for(blocks,
               [&](int64_t i) { Block::current().run(job, static_cast<uint64_t>(reverse ? blocks - 1 - i : i)); });
  FASTNTK_TSAN(__tsan_acquire(job.arguments));
}

}  // namespace fastntk::emu
