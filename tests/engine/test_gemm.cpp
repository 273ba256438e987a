// Matrix products against plain loops in float64, and the promises about bits of engine/cpu/gemm.h.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "engine/cpu/gemm.h"
#include "engine/cpu/isa/gemm.h"
#include "engine/parallel.h"
#include "worse.h"

using namespace fastntk;
using cpu::gemm;
using cpu::PackedMatrix;

namespace {

// Repeatable numbers in [-1, 1) that fill the mantissa.
template <class T>
std::vector<T> numbers(int64_t n, uint64_t seed) {
  std::vector<T> v(static_cast<size_t>(n));
  for (T& x : v) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    x = static_cast<T>(static_cast<double>(seed >> 11) * 0x1p-52 - 1);
  }
  return v;
}

template <class T>
bool same_bits(const T* a, const T* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(T)) == 0;
}

// One product: op(A) [m, k], op(B) [k, n], with rows of A, B and C a little longer than they need to be.
template <class T>
struct Problem {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  int64_t lda = (transpose_a ? m : k) + 3, ldb = (transpose_b ? k : n) + 1, ldc = n + 2;
  std::vector<T> a = numbers<T>((transpose_a ? k : m) * lda, 1), b = numbers<T>((transpose_b ? n : k) * ldb, 2);
  std::vector<T> c0 = numbers<T>(m * ldc, 3);

  T at_a(int64_t i, int64_t l) const { return a[static_cast<size_t>(transpose_a ? l * lda + i : i * lda + l)]; }
  T at_b(int64_t l, int64_t j) const { return b[static_cast<size_t>(transpose_b ? j * ldb + l : l * ldb + j)]; }

  std::vector<T> product(bool accumulate) const {
    std::vector<T> c = c0;
    gemm(transpose_a, transpose_b, m, n, k, a.data(), lda, b.data(), ldb, c.data(), ldc, accumulate);
    return c;
  }
  std::vector<T> packed_product(bool accumulate) const {
    std::vector<T> c = c0;
    const PackedMatrix<T> packed(transpose_b, k, n, b.data(), ldb);
    packed.multiply(transpose_a, m, a.data(), lda, c.data(), ldc, accumulate);
    return c;
  }
  // The largest error over the bound k eps sum |a b|; padding between rows must be untouched.
  double error(const std::vector<T>& c, bool accumulate) const {
    double worst = 0;
    for (int64_t i = 0; i < m; i++)
      for (int64_t j = 0; j < ldc; j++) {
        const T old = c0[static_cast<size_t>(i * ldc + j)], now = c[static_cast<size_t>(i * ldc + j)];
        if (j >= n) {
          if (now != old) return std::numeric_limits<double>::infinity();
          continue;
        }
        double sum = accumulate ? static_cast<double>(old) : 0, size = 1e-30 + std::abs(sum);
        for (int64_t l = 0; l < k; l++) {
          const double term = static_cast<double>(at_a(i, l)) * static_cast<double>(at_b(l, j));
          sum += term, size += std::abs(term);
        }
        const double bound = static_cast<double>(k + 2) * static_cast<double>(std::numeric_limits<T>::epsilon()) * size;
        worst = test::worse(worst, std::abs(static_cast<double>(now) - sum) / bound);
      }
    return worst;
  }
};

struct Threads {
  explicit Threads(int n) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
  const int before = thread_count();
};

const cpu::GemmKernels<float>& of(const cpu::GemmTable& table, float) { return table.f32; }
const cpu::GemmKernels<double>& of(const cpu::GemmTable& table, double) { return table.f64; }

// The tables of the instruction sets that this processor has.
std::vector<std::pair<std::string, const cpu::GemmTable*>> tables() {
  std::vector<std::pair<std::string, const cpu::GemmTable*>> all = {{"baseline", &cpu::baseline::gemm_table}};
#if defined(__x86_64__)
  if (cpu::isa() >= cpu::Isa::avx2) all.emplace_back("avx2", &cpu::avx2::gemm_table);
  if (cpu::isa() >= cpu::Isa::avx512) all.emplace_back("avx512", &cpu::avx512::gemm_table);
#endif
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("gemm equals plain loops", "[gemm]", float, double) {
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true})
      for (const bool accumulate : {false, true})
        for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                         {1, 33, 7},
                                                                         {10, 10, 64},
                                                                         {13, 16, 5},
                                                                         {12, 48, 256},
                                                                         {25, 17, 257},
                                                                         {3, 100, 600},
                                                                         {40, 31, 33},
                                                                         {300, 5, 20}}) {
          const Problem<TestType> problem{m, n, k, transpose_a, transpose_b};
          CAPTURE(m, n, k, transpose_a, transpose_b, accumulate);
          const auto c = problem.product(accumulate);
          CHECK(problem.error(c, accumulate) <= 1);
          const auto packed = problem.packed_product(accumulate);
          CHECK(same_bits(c.data(), packed.data(), std::ssize(c)));
        }
}

TEMPLATE_TEST_CASE("gemm of many columns and of a long inner dimension works piece by piece", "[gemm]", float, double) {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{14, 1100, 1030}, {14, 300, 4500}}) {
    const Problem<TestType> problem{m, n, k};
    CAPTURE(m, n, k);
    const auto c = problem.product(true);
    CHECK(problem.error(c, true) <= 1);
    const auto packed = problem.packed_product(true);
    CHECK(same_bits(c.data(), packed.data(), std::ssize(c)));
  }
}

TEMPLATE_TEST_CASE("gemm with an empty dimension", "[gemm]", float, double) {
  const TestType a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 1, 1, 1, 1, 1};
  TestType c[4] = {7, 7, 7, 7};
  gemm<TestType>(false, false, 0, 2, 3, a, 3, b, 2, c, 2);
  gemm<TestType>(false, false, 2, 0, 3, a, 3, b, 2, c, 2);
  gemm<TestType>(false, false, 2, 2, 0, a, 3, b, 2, c, 2, true);
  PackedMatrix<TestType>(false, 3, 0, b, 2).multiply(2, a, 3, c, 2);
  PackedMatrix<TestType>(false, 0, 2, b, 2).multiply(2, a, 3, c, 2, true);
  for (const TestType x : c) CHECK(x == 7);
  gemm<TestType>(false, false, 2, 1, 0, a, 3, b, 2, c, 2);
  CHECK((c[0] == 0 && c[1] == 7 && c[2] == 0 && c[3] == 7));
  PackedMatrix<TestType>(false, 0, 2, b, 2).multiply(2, a, 3, c, 2);
  CHECK((c[1] == 0 && c[3] == 0));
}

TEMPLATE_TEST_CASE("a row has the same bits alone, in a batch, and transposed", "[gemm]", float, double) {
  const int64_t m = 301, n = 75, k = 530;
  const Problem<TestType> problem{m, n, k};
  const auto batch = problem.product(false);
  std::vector<TestType> transposed_a(static_cast<size_t>(k * m)), transposed_b(static_cast<size_t>(n * k));
  for (int64_t l = 0; l < k; l++) {
    for (int64_t i = 0; i < m; i++) transposed_a[static_cast<size_t>(l * m + i)] = problem.at_a(i, l);
    for (int64_t j = 0; j < n; j++) transposed_b[static_cast<size_t>(j * k + l)] = problem.at_b(l, j);
  }
  auto other = problem.c0;
  gemm(true, true, m, n, k, transposed_a.data(), m, transposed_b.data(), k, other.data(), problem.ldc);
  CHECK(same_bits(batch.data(), other.data(), std::ssize(batch)));

  const PackedMatrix<TestType> packed(false, k, n, problem.b.data(), problem.ldb);
  for (const int64_t rows : {1, 2, 13, 100})
    for (const int64_t from : {0L, 7L, m - rows}) {
      CAPTURE(rows, from);
      std::vector<TestType> c(static_cast<size_t>(rows * n)), d = c;
      gemm(false, false, rows, n, k, problem.a.data() + from * problem.lda, problem.lda, problem.b.data(), problem.ldb,
           c.data(), n);
      packed.multiply(rows, problem.a.data() + from * problem.lda, problem.lda, d.data(), n);
      for (int64_t i = 0; i < rows; i++) {
        CHECK(same_bits(&c[static_cast<size_t>(i * n)], &batch[static_cast<size_t>((from + i) * problem.ldc)], n));
        CHECK(same_bits(&d[static_cast<size_t>(i * n)], &batch[static_cast<size_t>((from + i) * problem.ldc)], n));
      }
    }
  // And a column alone.
  std::vector<TestType> column(static_cast<size_t>(m));
  gemm(false, false, m, 1, k, problem.a.data(), problem.lda, problem.b.data() + 41, problem.ldb, column.data(), 1);
  for (int64_t i = 0; i < m; i++)
    CHECK(column[static_cast<size_t>(i)] == batch[static_cast<size_t>(i * problem.ldc + 41)]);
}

TEMPLATE_TEST_CASE("gemm gives the same bits for any number of threads", "[gemm]", float, double) {
  for (const auto& [m, n, k] : std::vector<std::array<int64_t, 3>>{{700, 90, 300}, {20, 1000, 300}, {5, 1000, 1000}}) {
    const Problem<TestType> problem{m, n, k};
    std::vector<std::vector<TestType>> results;
    for (const int threads : {1, 2, 3}) {
      const Threads scope(threads);
      results.push_back(problem.product(false));
      results.push_back(problem.packed_product(false));
    }
    for (const auto& c : results) CHECK(same_bits(c.data(), results[0].data(), std::ssize(c)));
    // Inside a parallel region.
    const Threads scope(2);
    parallel_for(2, [&](int64_t i) { results[static_cast<size_t>(i)] = problem.product(false); });
    CHECK(same_bits(results[0].data(), results[5].data(), std::ssize(results[0])));
    CHECK(same_bits(results[1].data(), results[5].data(), std::ssize(results[1])));
  }
}

TEMPLATE_TEST_CASE("the gemm kernels of every instruction set", "[gemm]", float, double) {
  for (const auto& [name, table] : tables()) {
    const auto& kernel = of(*table, TestType{});
    const int64_t width = 2 * kernel.lanes;
    for (int64_t rows = 1; rows <= 2 * kernel.tile_rows + 1; rows++)
      for (int64_t columns = 1; columns <= width; columns++) {
        const Problem<TestType> problem{rows, columns, 19};
        std::vector<TestType> b(static_cast<size_t>(19 * width), -1), c = problem.c0,
                                                                      alone(static_cast<size_t>(columns));
        kernel.copy(19, columns, problem.b.data(), problem.ldb, b.data(), width);
        kernel.multiply(rows, columns, 19, problem.a.data(), problem.lda, b.data(), width, c.data(), problem.ldc, true,
                        {}, {});
        CAPTURE(name, rows, columns);
        REQUIRE(problem.error(c, true) <= 1);
        kernel.multiply(rows, columns, 19, problem.a.data(), problem.lda, b.data(), width, c.data(), problem.ldc, false,
                        {}, {});
        REQUIRE(problem.error(c, false) <= 1);
        const int64_t last = rows - 1;
        kernel.multiply(1, columns, 19, problem.a.data() + last * problem.lda, problem.lda, b.data(), width,
                        alone.data(), columns, false, {}, {});
        REQUIRE(same_bits(alone.data(), &c[static_cast<size_t>(last * problem.ldc)], columns));
      }
    for (const int64_t rows : {1L, kernel.lanes - 1, kernel.lanes, kernel.lanes + 1})
      for (const int64_t columns : {1L, kernel.lanes, 2 * kernel.lanes + 1}) {
        const auto in = numbers<TestType>(rows * columns, 5);
        const int64_t stride = 2 * kernel.lanes, padded = (rows + kernel.lanes - 1) / kernel.lanes * kernel.lanes;
        std::vector<TestType> out(static_cast<size_t>(columns * stride), -1);
        kernel.transpose(rows, columns, in.data(), columns, out.data(), stride);
        CAPTURE(name, rows, columns);
        for (int64_t j = 0; j < columns; j++)
          for (int64_t i = 0; i < stride; i++)
            REQUIRE(out[static_cast<size_t>(j * stride + i)] ==
                    (i < rows ? in[static_cast<size_t>(i * columns + j)] : TestType(i < padded ? 0 : -1)));
      }
  }
}
