#include "engine/parallel.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "engine/error.h"

using namespace fastntk;

namespace {

// Sets the number of threads, and puts the old one back.
struct Threads {
  explicit Threads(int count) { set_thread_count(count); }
  ~Threads() { set_thread_count(before); }
  const int before = thread_count();
};

}  // namespace

TEST_CASE("every item runs once, for any number of threads and items") {
  for (const int threads : {1, 2, 3, 8}) {
    const Threads scope(threads);
    CHECK(thread_count() == threads);
    for (const int64_t items : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(items));
      parallel_for(items, [&](int64_t i) { runs[static_cast<size_t>(i)]++; });
      int64_t once = 0;
      for (const auto& r : runs) once += r == 1;
      CHECK(once == items);
    }
  }
  parallel_for(-3, [](int64_t) { FAIL("a negative number of items is none"); });
}

TEST_CASE("work is spread over the threads") {
  const Threads scope(3);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  parallel_for(30, [&](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  CHECK(seen.size() == 3);
}

TEST_CASE("ranges cover the items, each of the grain's length but the last") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    std::mutex mutex;
    std::set<std::pair<int64_t, int64_t>> ranges;
    parallel_ranges(10, 4, [&](int64_t from, int64_t to) {
      const std::lock_guard lock(mutex);
      ranges.emplace(from, to);
    });
    CHECK(ranges == std::set<std::pair<int64_t, int64_t>>{{0, 4}, {4, 8}, {8, 10}});
  }
  CHECK_THROWS_WITH(parallel_ranges(10, 0, [](int64_t, int64_t) {}), Catch::Contains("positive grain, got 0"));
}

TEST_CASE("a parallel_for inside another runs on the thread that it is on") {
  const Threads scope(3);
  CHECK_FALSE(in_parallel());
  std::atomic<int> inner{0}, elsewhere{0};
  parallel_for(6, [&](int64_t) {
    const auto own = std::this_thread::get_id();
    elsewhere += !in_parallel();
    parallel_for(5, [&](int64_t) {
      inner++;
      elsewhere += std::this_thread::get_id() != own;
    });
  });
  CHECK(inner == 30);
  CHECK(elsewhere == 0);
  CHECK_FALSE(in_parallel());
}

TEST_CASE("of several failures that of the first item is reported, after all items have run") {
  for (const int threads : {1, 2, 3}) {
    const Threads scope(threads);
    for (int repeat = 0; repeat < 20; repeat++) {
      std::atomic<int> ran{0};
      CHECK_THROWS_WITH(parallel_for(50,
                                     [&](int64_t i) {
                                       ran++;
                                       if (i % 7 == 3) fail("item {}", i);
                                     }),
                        "item 3");
      CHECK(ran == 50);
    }
    std::atomic<int> ran{0};
    parallel_for(50, [&](int64_t) { ran++; });  // the pool works on after a failure
    CHECK(ran == 50);
  }
}

TEST_CASE("a failure inside a nested parallel_for comes out as well") {
  const Threads scope(2);
  CHECK_THROWS_WITH(parallel_for(4, [](int64_t i) { parallel_for(4, [&](int64_t j) { fail("{}, {}", i, j); }); }),
                    "0, 0");
}

TEST_CASE("the number of threads is checked") {
  CHECK_THROWS_AS(set_thread_count(0), UsageError);
  CHECK_THROWS_AS(set_thread_count(5000), UsageError);
  const Threads scope(2);
  CHECK_THROWS_WITH(parallel_for(2, [](int64_t) { set_thread_count(3); }),
                    Catch::Contains("cannot change inside parallel_for"));
}

TEST_CASE("threads that are not workers take turns") {
  const Threads scope(2);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; c++)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 50; repeat++) parallel_for(20, [&](int64_t i) { sum += i; });
    });
  for (std::thread& c : callers) c.join();
  CHECK(sum == 3 * 50 * 190);
}
