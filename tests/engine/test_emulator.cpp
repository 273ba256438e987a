// The emulator of CUDA's execution model by itself: right kernels give right results in every order of the threads, and
// every misuse is caught.
#define FASTNTK_GPU emu
#include <algorithm>
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "engine/cuda/launch.cuh"
#include "engine/emu/sanitizers.h"
#include "engine/error.h"
#include "engine/parallel.h"

using namespace fastntk;
using Catch::Contains;
using emu::launch;

namespace {

// Kernels with a switch: `broken` leaves out, or does wrong, one thing.

__global__ void rotate(const int* x, int* y, bool broken) {
  FASTNTK_SHARED(int, tile, [64]);
  tile[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  if (!broken) __syncthreads();
  y[blockIdx.x * 64 + threadIdx.x] = tile[(threadIdx.x + 1) % 64];
}

__global__ void sum_of_warp(const int* x, int* y, unsigned mask) {
  int v = x[threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) v += __shfl_xor_sync(mask, v, distance);
  y[threadIdx.x] = v;
}

__global__ void divergent_barrier(int* y) {
  if (threadIdx.x < 32)  // NOLINT(bugprone-branch-clone): two barriers
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 1;
}

__global__ void barrier_of_some() {
  if (threadIdx.x < 32) __syncthreads();
}

__global__ void warp_of_some(int* y) {
  if (threadIdx.x % 2 == 0) y[threadIdx.x] = __shfl_sync(0xffffffffU, 1, 0);
}

__global__ void two_operations(int* y) {
  if (threadIdx.x < 16)
    y[threadIdx.x] = __shfl_sync(0xffffffffU, 1, 0);
  else
    __syncwarp();
}

__global__ void foreign_mask(int* y) { y[threadIdx.x] = __shfl_sync(1U, 1, 0); }
__global__ void read_outside_mask(int* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffU, 1, 20);
}

__global__ void write_behind(int beyond) {
  FASTNTK_SHARED(int, few, [5]);
  int* const p = few;
  p[4 + beyond] = 1;
}

__global__ void too_much_shared() {
  FASTNTK_SHARED(double, large, [6145]);
  large[0] = 1;
}
__global__ void all_shared(double* y) {
  FASTNTK_SHARED(double, large, [6144]);
  large[threadIdx.x] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = large[threadIdx.x];
}

__global__ void shared_at_first(unsigned char* y) {
  FASTNTK_SHARED(unsigned char, bytes, [16]);
  y[threadIdx.x] = bytes[threadIdx.x];
}

__global__ void votes(unsigned* y) {
  y[threadIdx.x] = __ballot_sync(0xffffffffU, threadIdx.x % 3 == 0);
  if (__any_sync(0xffffffffU, threadIdx.x == 40 % 32) == 0 || __all_sync(0xffffffffU, threadIdx.x < 31) != 0) y[0] = 0;
}

__global__ void shuffles(int* y) {
  const int lane = static_cast<int>(threadIdx.x);
  y[lane] = __shfl_up_sync(0xffffffffU, lane, 3);
  y[32 + lane] = __shfl_down_sync(0xffffffffU, lane, 3);
  y[64 + lane] = __shfl_sync(0xffffffffU, lane, 5, 8);
}

__global__ void places(uint64_t* y) {
  const uint64_t block = blockIdx.x + gridDim.x * (blockIdx.y + uint64_t{gridDim.y} * blockIdx.z);
  const uint64_t thread = threadIdx.x + blockDim.x * (threadIdx.y + uint64_t{blockDim.y} * threadIdx.z);
  y[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

__global__ void smallest(const int64_t* x, int64_t* y) { atomicMin(y, x[blockIdx.x * blockDim.x + threadIdx.x]); }

// 1 and 2 from thread 0 to all others through one array, as 10 · first + second.
__global__ void broadcast_twice(int* y, bool barrier) {
  FASTNTK_SHARED(int, word, [1]);
  if (threadIdx.x == 0) word[0] = 1;
  __syncthreads();
  const int first = word[0];
  if (barrier) __syncthreads();
  __shfl_xor_sync(0xffffffffU, first, 1);  // the lanes of a warp meet, and so hide the race in other orders
  if (threadIdx.x == 0) word[0] = 2;
  __syncthreads();
  y[threadIdx.x] = 10 * first + word[0];
}

__global__ void throwing() { fail("a kernel that throws"); }

struct InOrder {
  explicit InOrder(emu::Schedule schedule) { emu::set_schedule(schedule); }
  ~InOrder() { emu::set_schedule(emu::Schedule::forward); }
};
constexpr emu::Schedule all_schedules[] = {emu::Schedule::forward, emu::Schedule::reverse, emu::Schedule::shuffled,
                                           emu::Schedule::warps};

}  // namespace

TEST_CASE("emulator: a kernel with a barrier gives the same in every order of the threads, one without does not") {
  std::vector<int> x(256), y(256);
  std::iota(x.begin(), x.end(), 0);
  int wrong = 0;
  for (const emu::Schedule schedule : all_schedules) {
    const InOrder order(schedule);
    launch({4}, {64}, rotate, x.data(), y.data(), false);
    for (int i = 0; i < 256; i++) REQUIRE(y[static_cast<size_t>(i)] == i / 64 * 64 + (i + 1) % 64);
    if (emu::under_tsan) continue;  // which reports the race
    launch({4}, {64}, rotate, x.data(), y.data(), true);
    for (int i = 0; i < 256; i++) wrong += y[static_cast<size_t>(i)] != i / 64 * 64 + (i + 1) % 64;
  }
  CHECK((wrong > 100 || emu::under_tsan));  // shared memory is filled with 0xFF at first, so what nobody wrote does not
                                            // look like a result
}

TEST_CASE("emulator: a warp that runs ahead shows a barrier that is missing between two uses of one array") {
  if (emu::under_tsan) return;  // which reports the race
  std::vector<int> y(128);
  const auto wrong = [&](emu::Schedule schedule, bool barrier) {
    const InOrder order(schedule);
    launch({1}, {128}, broadcast_twice, y.data(), barrier);
    return std::count_if(y.begin(), y.end(), [](int v) { return v != 12; });
  };
  for (const emu::Schedule schedule : all_schedules) CHECK(wrong(schedule, true) == 0);
  CHECK(wrong(emu::Schedule::warps, false) > 0);
}

TEST_CASE("emulator: warps shuffle and vote") {
  std::vector<int> x(32), y(96);
  std::iota(x.begin(), x.end(), 0);
  launch({1}, {32}, sum_of_warp, x.data(), y.data(), 0xffffffffU);
  for (int i = 0; i < 32; i++) CHECK(y[static_cast<size_t>(i)] == 496);
  launch({1}, {32}, shuffles, y.data());
  for (int i = 0; i < 32; i++) {
    CHECK(y[static_cast<size_t>(i)] == (i < 3 ? i : i - 3));
    CHECK(y[static_cast<size_t>(32 + i)] == (i + 3 < 32 ? i + 3 : i));
    CHECK(y[static_cast<size_t>(64 + i)] == i / 8 * 8 + 5);
  }
  std::vector<unsigned> ballots(32);
  launch({1}, {32}, votes, ballots.data());
  for (const unsigned ballot : ballots) CHECK(ballot == 0x49249249U);
}

TEST_CASE("emulator: every thread of every block runs once, on several threads of the host") {
  const int threads = thread_count();
  set_thread_count(4);
  std::vector<uint64_t> y(2 * 3 * 4 * 5 * 3 * 2);
  launch({2, 3, 4}, {5, 3, 2}, places, y.data());
  set_thread_count(threads);
  for (size_t i = 0; i < y.size(); i++) CHECK(y[i] == i / 30 * 1000 + i % 30);
}

TEST_CASE("emulator: an atomic minimum is that of all threads") {
  std::vector<int64_t> x(1000);
  for (size_t i = 0; i < x.size(); i++) x[i] = static_cast<int64_t>((i * 7919) % 1000) - 300;
  int64_t y = 1 << 20;
  launch({10}, {100}, smallest, x.data(), &y);
  CHECK(y == -300);
}

TEST_CASE("emulator: misuse of barriers is caught") {
  std::vector<int> y(64);
  CHECK_THROWS_WITH(launch({1}, {64}, divergent_barrier, y.data()), Contains("divergent __syncthreads"));
  CHECK_THROWS_WITH(launch({1}, {64}, barrier_of_some),
                    Contains("32 wait in __syncthreads") && Contains("32 have ended") && Contains("block (0, 0, 0)"));
}

TEST_CASE("emulator: misuse of warp operations is caught") {
  std::vector<int> x(64), y(64);
  CHECK_THROWS_WITH(launch({1}, {32}, warp_of_some, y.data()), Contains("names lane"));
  CHECK_THROWS_WITH(launch({1}, {32}, two_operations, y.data()), Contains("different operations"));
  CHECK_THROWS_WITH(launch({1}, {32}, foreign_mask, y.data()), Contains("its own mask"));
  CHECK_THROWS_WITH(launch({1}, {32}, read_outside_mask, y.data()), Contains("reads lane 20"));
  CHECK_THROWS_WITH(launch({1}, {24}, sum_of_warp, x.data(), y.data(), 0xffffffffU), Contains("does not exist"));
  CHECK_THROWS_WITH(launch({1}, {32}, sum_of_warp, x.data(), y.data(), 0xffU), Contains("reads lane 16"));
}

TEST_CASE("emulator: shared memory has bounds, a limit and no contents") {
  launch({1}, {1}, write_behind, 0);
  if (!emu::under_asan && !emu::under_tsan)  // the address sanitizer ends the program there
    CHECK_THROWS_WITH(launch({1}, {1}, write_behind, 1), Contains("behind the end of a shared array"));
  std::vector<unsigned char> bytes(16);
  launch({1}, {16}, shared_at_first, bytes.data());
  for (const unsigned char byte : bytes) CHECK((byte == 0xFF || emu::under_tsan));
  CHECK_THROWS_WITH(launch({1}, {1}, too_much_shared), Contains("over the limit of 49152"));
  std::vector<double> y(1024);
  launch({1}, {1024}, all_shared, y.data());
  CHECK(y[1000] == 1000);
}

TEST_CASE("emulator: the limits of a launch hold") {
  uint64_t y = 0;
  CHECK_THROWS_WITH(launch({1}, {1025}, places, &y), Contains("together 1024"));
  CHECK_THROWS_WITH(launch({1}, {1, 1, 65}, places, &y), Contains("outside the limits"));
  CHECK_THROWS_WITH(launch({1}, {32, 33}, places, &y), Contains("outside the limits"));
  CHECK_THROWS_WITH(launch({1, 65536}, {1}, places, &y), Contains("outside the limits"));
  CHECK_THROWS_WITH(launch({0}, {1}, places, &y), Contains("outside the limits"));
  CHECK_THROWS_WITH(launch({1}, {0}, places, &y), Contains("outside the limits"));
}

TEST_CASE("emulator: an exception of a kernel ends the launch, and the next launch is not harmed") {
  CHECK_THROWS_WITH(launch({3}, {40}, throwing), Contains("a kernel that throws"));
  std::vector<int> x(64, 7), y(64);
  launch({1}, {64}, rotate, x.data(), y.data(), false);
  CHECK(y == x);
}
