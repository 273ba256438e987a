// The CPU's kernel families.
#include "engine/backend.h"

#include "engine/cpu/map.h"
#include "engine/cpu/reduce.h"

namespace fastntk {
namespace {

class CpuBackend final : public Backend {
 public:
  void copy(const Tensor& source, Tensor& out) const override { cpu::copy(source, out); }
  void fill(Tensor& out, double value) const override { cpu::fill(out, value); }
  void map(UnaryKind kind, double parameter, const Tensor& x, Tensor& out) const override {
    cpu::map(kind, parameter, x, out);
  }
  void map(BinaryKind kind, const Tensor& a, const Tensor& b, Tensor& out) const override { cpu::map(kind, a, b, out); }
  int64_t first_non_finite(const Tensor& x) const override { return cpu::first_non_finite(x); }
  void reduce(ReduceKind kind, const Tensor& x, Tensor& out) const override { cpu::reduce(kind, x, out); }
};

}  // namespace

const Backend& backend(Device) {
  static const CpuBackend cpu;
  return cpu;
}

}  // namespace fastntk
