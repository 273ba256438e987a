#include "engine/storage.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <thread>
#include <vector>

#include "engine/tensor.h"

using namespace fastntk;

TEST_CASE("the cache counts what is live, what was live at most, and what it keeps") {
  release_cached_memory();
  reset_peak_memory();
  const MemoryStatistics start = memory_statistics();
  CHECK(start.peak == start.live);
  CHECK(start.cached == 0);
  {
    const Buffer a(1 << 20);
    const Buffer b(3 << 20);
    CHECK(memory_statistics().live == start.live + (4 << 20));
    CHECK(memory_statistics().peak == start.live + (4 << 20));
  }
  CHECK(memory_statistics().live == start.live);
  CHECK(memory_statistics().peak == start.live + (4 << 20));
  CHECK(memory_statistics().cached == 4 << 20);
  reset_peak_memory();
  CHECK(memory_statistics().peak == start.live);
  release_cached_memory();
  CHECK(memory_statistics().cached == 0);
}

TEST_CASE("a block that was given back is handed out again") {
  release_cached_memory();
  const void* first = nullptr;
  {
    const Buffer a(100000);
    first = a.as<void>();
  }
  const size_t cached = memory_statistics().cached;
  const Buffer b(99000);  // of the same bucket
  CHECK(b.as<void>() == first);
  CHECK(memory_statistics().cached < cached);
  const Buffer c(99000);
  CHECK(c.as<void>() != first);
}

TEST_CASE("blocks are aligned, and no more than a quarter larger than asked for") {
  for (size_t bytes = 1; bytes < (size_t{8} << 20); bytes = bytes * 5 / 3 + 7) {
    const size_t before = memory_statistics().live;
    const Buffer buffer(bytes);
    const size_t size = memory_statistics().live - before;
    CHECK(reinterpret_cast<uintptr_t>(buffer.as<void>()) % 64 == 0);
    CHECK(size >= bytes);
    CHECK(size <= std::max<size_t>(256, bytes + bytes / 4 + 1));
    CHECK(buffer.bytes() == bytes);
    std::memset(buffer.as<void>(), 1, bytes);
  }
}

TEST_CASE("very large blocks go back to the operating system at once") {
  release_cached_memory();
  { const Buffer large(size_t{65} << 20); }
  CHECK(memory_statistics().cached == 0);
}

TEST_CASE("a buffer moves without copying, and frees what it held") {
  const size_t before = memory_statistics().live;
  {
    Buffer a(1000), b(5000);
    const void* const p = b.as<void>();
    a = std::move(b);
    CHECK(a.as<void>() == p);
    CHECK(a.bytes() == 5000);
    const Buffer c(std::move(a));
    CHECK(c.as<void>() == p);
  }
  CHECK(memory_statistics().live == before);
}

TEST_CASE("tensors give their memory back when the last view of it goes") {
  const size_t before = memory_statistics().live;
  {
    Tensor view;
    {
      const Tensor x = Tensor::zeros({1000});
      view = x.slice(0, 10, 20);
    }
    CHECK(memory_statistics().live > before);
    CHECK(view.data<float>()[0] == 0);
  }
  CHECK(memory_statistics().live == before);
}

TEST_CASE("what is derived from a storage is made once, and again after a change") {
  Tensor x = Tensor::full({4}, 3);
  int made = 0;
  const auto doubled = [&] {
    return *x.storage()->derived<double>("doubled", [&] {
      made++;
      return 2.0 * x.data<float>()[0];
    });
  };
  CHECK(doubled() == 6);
  CHECK(doubled() == 6);
  CHECK(made == 1);
  x.fill(5);
  CHECK(doubled() == 10);
  CHECK(made == 2);
  CHECK(*x.storage()->derived<double>("tripled", [&] { return 15.0; }) == 15);
  CHECK(made == 2);
  const std::shared_ptr<const double> kept = x.storage()->derived<double>("doubled", [] { return 0.0; });
  x.fill(1);
  CHECK(doubled() == 2);
  CHECK(*kept == 10);  // whoever holds the old one may finish with it
}

TEST_CASE("the cache and derived values may be used from several threads") {
  const size_t before = memory_statistics().live;
  {
    const Tensor shared = Tensor::full({16}, 2);
    std::atomic<bool> disturbed{false};
    std::vector<std::shared_ptr<const int>> derived(4);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
      threads.emplace_back([&, t] {
        for (size_t i = 1; i < 300; i++) {
          Buffer b(i * 97 + static_cast<size_t>(t));
          std::memset(b.as<void>(), t, b.bytes());
          if (*static_cast<char*>(b.as<void>()) != t) disturbed = true;
        }
        derived[static_cast<size_t>(t)] = shared.storage()->derived<int>("number", [t] { return t; });
      });
    for (std::thread& t : threads) t.join();
    CHECK_FALSE(disturbed);
    for (const auto& d : derived) CHECK(d == derived[0]);  // whoever made it, all have the same one
  }
  CHECK(memory_statistics().live == before);
}

TEST_CASE("the resident high-water mark is that of a running process") {
  CHECK(peak_resident_bytes() > size_t{1} << 20);
}
