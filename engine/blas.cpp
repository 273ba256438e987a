#include "engine/blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>
#include <vector>

#include "engine/cpu/dispatch.h"
#include "engine/error.h"

namespace fastntk {
namespace {

// Sets an environment variable, and puts the old value back at the end: what steers OpenBLAS while it loads must not
// reach the programs that this one starts.
class EnvironmentScope {
 public:
  EnvironmentScope(const char* name, const char* value) : name_(name) {
    if (const char* const old = std::getenv(name)) old_ = old;
    setenv(name, value, 1);
  }
  ~EnvironmentScope() {
    if (old_)
      setenv(name_, old_->c_str(), 1);
    else
      unsetenv(name_);
  }
  EnvironmentScope(const EnvironmentScope&) = delete;
  EnvironmentScope& operator=(const EnvironmentScope&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

// OpenBLAS picks its kernels from a list of processors that it knows; 0.3.21 (Debian 12) takes any newer AVX-512
// processor of AMD for a Haswell, at half the speed, and some newer Intel ones for a Prescott. The instruction set is
// what decides, so name the kernel set for it. One set per instruction set also means equal bits on more machines.
const char* wanted_kernel_set() {
  switch (cpu::isa()) {
    case cpu::Isa::avx512:
      return "SKYLAKEX";
    case cpu::Isa::avx2:
      return "HASWELL";
    case cpu::Isa::baseline:
      break;
  }
  return nullptr;
}

constexpr const char* library_names[] = {"libopenblas.so.0", "libopenblas.so"};

void* open_library() {
  // A host program may have OpenBLAS loaded, with kernels of its own choice.
  for (const char* name : library_names)
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)) return library;
  const EnvironmentScope no_threads("OPENBLAS_NUM_THREADS", "1");
  std::optional<EnvironmentScope> kernels;
  const char* const wanted = wanted_kernel_set();
  if (wanted && !std::getenv("OPENBLAS_CORETYPE")) kernels.emplace("OPENBLAS_CORETYPE", wanted);
  for (const char* name : library_names)
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  fail(
      "OpenBLAS is needed, but neither libopenblas.so.0 nor libopenblas.so could be loaded: install the Debian package "
      "libopenblas0 (or libopenblas-dev)");
}

// The Fortran interface: every argument by address, and for LAPACK routines the lengths of strings at the end.
struct Library {
  using Gemm64 = void(const char*, const char*, const int*, const int*, const int*, const double*, const double*,
                      const int*, const double*, const int*, const double*, double*, const int*);
  using Gemm32 = void(const char*, const char*, const int*, const int*, const int*, const float*, const float*,
                      const int*, const float*, const int*, const float*, float*, const int*);
  using Syrk = void(const char*, const char*, const int*, const int*, const double*, const double*, const int*,
                    const double*, double*, const int*);
  using Trsm = void(const char*, const char*, const char*, const char*, const int*, const int*, const double*,
                    const double*, const int*, double*, const int*);
  using Potrf = void(const char*, const int*, double*, const int*, int*, size_t);
  using Syevr = void(const char*, const char*, const char*, const int*, double*, const int*, const double*,
                     const double*, const int*, const int*, const double*, int*, double*, double*, const int*, int*,
                     double*, const int*, int*, const int*, int*, size_t, size_t, size_t);

  void* handle = open_library();
  Gemm64* dgemm = find<Gemm64>("dgemm_");
  Gemm32* sgemm = find<Gemm32>("sgemm_");
  Syrk* dsyrk = find<Syrk>("dsyrk_");
  Trsm* dtrsm = find<Trsm>("dtrsm_");
  Potrf* dpotrf = find<Potrf>("dpotrf_");
  Syevr* dsyevr = find<Syevr>("dsyevr_");
  const char* kernel_set = find<char*()>("openblas_get_corename")();
  const char* configuration = find<char*()>("openblas_get_config")();

  Library() { find<void(int)>("openblas_set_num_threads")(1); }

  template <class F>
  F* find(const char* symbol) const {
    void* const address = dlsym(handle, symbol);
    require(address, "the OpenBLAS library found has no function {}: install the Debian package libopenblas0", symbol);
    return reinterpret_cast<F*>(address);
  }
};

const Library& library() {
  static const Library* const instance = new Library;  // never unloaded: threads may still be inside at exit
  return *instance;
}

}  // namespace

namespace blas {

void gemm(char transpose_a, char transpose_b, int m, int n, int k, double alpha, const double* a, int lda,
          const double* b, int ldb, double beta, double* c, int ldc) {
  library().dgemm(&transpose_a, &transpose_b, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}

void gemm(char transpose_a, char transpose_b, int m, int n, int k, float alpha, const float* a, int lda, const float* b,
          int ldb, float beta, float* c, int ldc) {
  library().sgemm(&transpose_a, &transpose_b, &m, &n, &k, &alpha, a, &lda, b, &ldb, &beta, c, &ldc);
}

void syrk(char triangle, char transpose, int n, int k, double alpha, const double* a, int lda, double beta, double* c,
          int ldc) {
  library().dsyrk(&triangle, &transpose, &n, &k, &alpha, a, &lda, &beta, c, &ldc);
}

void trsm(char side, char triangle, char transpose, char unit, int m, int n, double alpha, const double* a, int lda,
          double* b, int ldb) {
  library().dtrsm(&side, &triangle, &transpose, &unit, &m, &n, &alpha, a, &lda, b, &ldb);
}

int potrf(char triangle, int n, double* a, int lda) {
  int info = 0;
  library().dpotrf(&triangle, &n, a, &lda, &info, 1);
  require(info >= 0, "dpotrf refused its argument {}", -info);
  return info;
}

void eigenvalues(char triangle, int n, double* a, int lda, double* values) {
  const double unused_range = 0, tolerance = 0;
  const int unused_index = 0, one = 1;
  int found = 0, info = 0, integers_wanted = 0;
  double unused_vectors = 0, numbers_wanted = 0;
  std::vector<int> support(2 * static_cast<size_t>(std::max(1, n)));
  const auto call = [&](double* numbers, int number_count, int* integers, int integer_count) {
    library().dsyevr("N", "A", &triangle, &n, a, &lda, &unused_range, &unused_range, &unused_index, &unused_index,
                     &tolerance, &found, values, &unused_vectors, &one, support.data(), numbers, &number_count,
                     integers, &integer_count, &info, 1, 1, 1);
    require(info == 0 && (number_count < 0 || found == n), "dsyevr found {} of {} eigenvalues (info {})", found, n,
            info);
  };
  call(&numbers_wanted, -1, &integers_wanted, -1);  // asks for the size of the workspace
  std::vector<double> numbers(static_cast<size_t>(numbers_wanted));
  std::vector<int> integers(static_cast<size_t>(integers_wanted));
  call(numbers.data(), static_cast<int>(numbers.size()), integers.data(), static_cast<int>(integers.size()));
}

}  // namespace blas

std::string blas_kernel_set() { return library().kernel_set; }

std::string blas_version() {
  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …": the first two words.
  const std::string all = library().configuration;
  return all.substr(0, all.find(' ', all.find(' ') + 1));
}

double measured_sgemm_gflops(int threads) {
  require_usage(threads >= 1, "the number of threads must be at least 1, got {}", threads);
  using Clock = std::chrono::steady_clock;
  constexpr int n = 1024, rounds = 5, products = 4;
  double best = 0;
  std::atomic<int> ready{0};
  // All threads start a round together; the first one holds the clock.
  const auto meet = [&](int arrivals) {
    ready.fetch_add(1);
    while (ready.load() < arrivals) std::this_thread::yield();
  };
  const auto body = [&](int thread) {
    std::vector<float> a(size_t{n} * n, 0.5F), b(size_t{n} * n, 0.25F), c(size_t{n} * n);
    for (int round = 0; round < rounds; round++) {
      meet((2 * round + 1) * threads);
      const auto start = Clock::now();
      for (int i = 0; i < products; i++) blas::gemm('N', 'N', n, n, n, 1.F, a.data(), n, b.data(), n, 0.F, c.data(), n);
      meet((2 * round + 2) * threads);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      if (thread == 0) best = std::max(best, 2.0 * n * n * n * products * threads / seconds * 1e-9);
    }
  };
  static_cast<void>(blas_version());  // an Error here, and not in a thread, if there is no BLAS
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++) others.emplace_back(body, i);
  body(0);
  for (auto& t : others) t.join();
  return best;
}

}  // namespace fastntk
