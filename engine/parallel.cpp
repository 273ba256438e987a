#include "engine/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/error.h"

namespace fastntk {
namespace {

thread_local bool inside = false;

struct InsideScope {
  InsideScope() { inside = true; }
  ~InsideScope() { inside = false; }
};

// One job at a time: callers that are not workers take turns.
class Pool {
 public:
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; i++) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& e) {
      const size_t started = workers_.size() + 1;
      stop();
      fail("only {} of {} threads could be started: {}", started, threads, e.what());
    }
  }
  ~Pool() { stop(); }

  void run(int64_t items, const std::function<void(int64_t)>& body) {
    const std::lock_guard turn(turn_);
    {
      const std::lock_guard lock(mutex_);
      body_ = &body;
      items_ = items;
      next_.store(0, std::memory_order_relaxed);
      busy_ = static_cast<int>(workers_.size());
      failed_at_ = items;
      failure_ = nullptr;
      job_++;
    }
    wake_.notify_all();
    take();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    body_ = nullptr;
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& w : workers_) w.join();
  }
  void take() {
    const InsideScope scope;
    for (;;) {
      const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= items_) return;
      try {
        (*body_)(i);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (i < failed_at_) failed_at_ = i, failure_ = std::current_exception();
      }
    }
  }
  void work() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || job_ != seen; });
      if (stop_) return;
      seen = job_;
      lock.unlock();
      take();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t items_ = 0, failed_at_ = 0;
  std::atomic<int64_t> next_{0};
  std::exception_ptr failure_;
  int busy_ = 0;
  uint64_t job_ = 0;
  bool stop_ = false;
};

int available_processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1U, std::thread::hardware_concurrency());
}

std::mutex pool_mutex;
int threads = 0;
std::shared_ptr<Pool> pool;

std::shared_ptr<Pool> current_pool() {
  const std::lock_guard lock(pool_mutex);
  if (threads == 0) threads = available_processors();
  if (!pool) pool = std::make_shared<Pool>(threads);
  return pool;
}

}  // namespace

int thread_count() {
  const std::lock_guard lock(pool_mutex);
  if (threads == 0) threads = available_processors();
  return threads;
}

void set_thread_count(int count) {
  require_usage(count >= 1 && count <= 1024, "the number of threads must be between 1 and 1024, got {}", count);
  require(!inside, "the number of threads cannot change inside parallel_for");
  const std::lock_guard lock(pool_mutex);
  if (count != threads) pool.reset();
  threads = count;
}

bool in_parallel() { return inside; }

void parallel_for(int64_t items, const std::function<void(int64_t)>& body) {
  if (items <= 0) return;
  if (inside || items == 1 || thread_count() == 1) {
    // A failure must not depend on the number of threads: all items run, the first failure is reported.
    std::exception_ptr failure;
    for (int64_t i = 0; i < items; i++) {
      try {
        body(i);
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
  current_pool()->run(items, body);
}

void parallel_ranges(int64_t items, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  require(grain > 0, "parallel_ranges needs a positive grain, got {}", grain);
  parallel_for((items + grain - 1) / grain, [&](int64_t i) { body(i * grain, std::min(items, (i + 1) * grain)); });
}

}  // namespace fastntk
