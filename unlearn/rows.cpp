#include "unlearn/rows.h"

#include <algorithm>
#include <numeric>

#include "engine/backend.h"
#include "engine/parallel.h"
#include "unlearn/weighted_rows.h"

namespace fastntk {
namespace {

constexpr int64_t gram_chunk = 64;        // samples whose rows are copied at once
constexpr int64_t parameter_block = 256;  // columns that one thread sums
constexpr int64_t preconditioner_rank = 64;

void check_rows(const LinearisedSet& set, const char* what) {
  require_usage(set.rows.defined(), "{} needs the rows of J, which a matrix-free set has not", what);
}

void check_positions(const LinearisedSet& set, const Positions& s) {
  for (size_t i = 0; i < s.size(); i++)
    require(s[i] >= 0 && s[i] < set.size() && (i == 0 || s[i - 1] < s[i]),
            "positions must ascend within a set of {} samples, got {}", set.size(), s[i]);
}

// Calls f(first, rows) for the rows [samples · C, P] of a few samples at a time, from position `first` of `s` on, in
// float64 on their device.
template <class F>
void for_device_rows(const LinearisedSet& set, const Positions& s, F&& f) {
  constexpr int64_t samples = 256;
  const auto n = static_cast<int64_t>(s.size());
  for (int64_t from = 0; from < n; from += samples) {
    const auto part = std::span(s).subspan(static_cast<size_t>(from), static_cast<size_t>(std::min(samples, n - from)));
    const Tensor rows = rows_at(set.rows, part).to(DType::float64).contiguous();
    f(from, rows.reshape({rows.extent(0) * rows.extent(1), rows.extent(2)}));
  }
}

Tensor rows_times_on_device(const LinearisedSet& set, const Positions& s, const Tensor& v) {
  const Device device = set.rows.device();
  const int64_t C = set.classes();
  const Tensor x = v.to(DType::float64).contiguous().reshape({set.parameters(), 1}).to(device);
  Tensor out({static_cast<int64_t>(s.size()) * C, 1}, DType::float64);
  for_device_rows(set, s, [&](int64_t first, const Tensor& rows) {
    Tensor y({rows.extent(0), 1}, DType::float64, device);
    backend(device).gemm(rows, x, y, false);
    out.slice(0, first * C, first * C + rows.extent(0)).copy_from(y.to(Device::cpu));
  });
  return out.reshape({static_cast<int64_t>(s.size()), C});
}

Tensor transposed_rows_times_on_device(const LinearisedSet& set, const Positions& s, const Tensor& u) {
  const Device device = set.rows.device();
  const int64_t C = set.classes(), P = set.parameters();
  const Tensor weights = u.to(DType::float64).contiguous().reshape({static_cast<int64_t>(s.size()) * C, 1}).to(device);
  Tensor sum = Tensor::zeros({P, 1}, DType::float64, device), part(sum.shape(), DType::float64, device);
  for_device_rows(set, s, [&](int64_t first, const Tensor& rows) {
    backend(device).gemm(rows.transpose(0, 1), weights.slice(0, first * C, first * C + rows.extent(0)), part, false);
    backend(device).map(BinaryKind::add, sum, part, sum);
  });
  return sum.to(Device::cpu).reshape({P});
}

}  // namespace

Positions all_positions(int64_t n) {
  Positions p(static_cast<size_t>(n));
  std::iota(p.begin(), p.end(), 0);
  return p;
}

Positions complement(const Positions& positions, int64_t n) {
  Positions out;
  size_t at = 0;
  for (int64_t i = 0; i < n; i++) {
    if (at < positions.size() && positions[at] == i)
      at++;
    else
      out.push_back(i);
  }
  return out;
}

Tensor rows_times(const LinearisedSet& set, const Positions& s, const Tensor& v) {
  check_positions(set, s);
  if (set.products) return set.products->times(s, v);
  const int64_t C = set.classes(), P = set.parameters();
  require(v.shape() == Shape{P}, "J v needs v [{}], got {}", P, v.shape().str());
  if (set.rows.device() != Device::cpu) return rows_times_on_device(set, s, v);
  Tensor out({static_cast<int64_t>(s.size()), C}, DType::float64);
  double* const y = out.mutable_data<double>();
  const Tensor rows = set.rows.contiguous(), direction = v.to(DType::float64).contiguous();
  const double* const x = direction.data<double>();
  for_floating(rows.dtype(), "J v", [&](auto zero) {
    using T = decltype(zero);
    const T* const j = rows.data<T>();
    parallel_ranges(static_cast<int64_t>(s.size()), 16, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++)
        for (int64_t c = 0; c < C; c++) {
          const T* const row = j + (s[static_cast<size_t>(i)] * C + c) * P;
          double part[8] = {};  // eight sums, so that the additions need not wait for one another
          int64_t p = 0;
          for (; p + 8 <= P; p += 8)
            for (int k = 0; k < 8; k++) part[k] += static_cast<double>(row[p + k]) * x[p + k];
          for (int k = 0; p < P; p++, k++) part[k] += static_cast<double>(row[p]) * x[p];
          y[i * C + c] = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
        }
    });
  });
  return out;
}

Tensor transposed_rows_times(const LinearisedSet& set, const Positions& s, const Tensor& u) {
  check_positions(set, s);
  if (set.products) return set.products->transposed_times(s, u);
  const int64_t C = set.classes(), P = set.parameters();
  require(u.elements() == static_cast<int64_t>(s.size()) * C, "Jᵀu needs u [{}, {}], got {}", s.size(), C,
          u.shape().str());
  if (set.rows.device() != Device::cpu) return transposed_rows_times_on_device(set, s, u);
  Tensor out = Tensor::zeros({P}, DType::float64);
  double* const y = out.mutable_data<double>();
  const Tensor rows = set.rows.contiguous(), weights = u.to(DType::float64).contiguous();
  const double* const w = weights.data<double>();
  for_floating(rows.dtype(), "Jᵀu", [&](auto zero) {
    using T = decltype(zero);
    const T* const j = rows.data<T>();
    parallel_ranges(P, parameter_block, [&](int64_t from, int64_t to) {
      for (size_t i = 0; i < s.size(); i++)
        for (int64_t c = 0; c < C; c++) {
          const T* const row = j + (s[i] * C + c) * P;
          const double weight = w[static_cast<int64_t>(i) * C + c];
          for (int64_t p = from; p < to; p++) y[p] += weight * static_cast<double>(row[p]);
        }
    });
  });
  return out;
}

Tensor residuals_at(const Loss& loss, const Tensor& logits, const std::vector<int64_t>& labels) {
  const int64_t C = logits.extent(1);
  Tensor out(logits.shape(), DType::float64);
  double* const r = out.mutable_data<double>();
  for (size_t i = 0; i < labels.size(); i++)
    loss.gradient(logits.data<double>() + static_cast<int64_t>(i) * C, C, labels[i], r + static_cast<int64_t>(i) * C);
  for (int64_t i = 0; i < out.elements(); i++) r[i] = -r[i];
  return out;
}

Tensor residuals_of(const LinearisedSet& set, const Positions& s, const std::vector<double>& predicted) {
  const int64_t C = set.classes();
  const auto labels = set.labels.to_vector<int64_t>();
  Tensor r({static_cast<int64_t>(s.size()), C}, DType::float64);
  double* const out = r.mutable_data<double>();
  for (size_t i = 0; i < s.size(); i++)
    for (int64_t c = 0; c < C; c++)
      out[static_cast<int64_t>(i) * C + c] =
          (c == labels[static_cast<size_t>(s[i])] ? 1.0 : 0.0) - predicted[static_cast<size_t>(s[i] * C + c)];
  return r;
}

SymmetricMatrix weighted_gram(const LinearisedSet& set, const Positions& s, const Loss& loss, const Tensor& f) {
  check_positions(set, s);
  check_rows(set, "a weighted Gram matrix");
  const auto n = static_cast<int64_t>(s.size());
  GramAccumulator gram(set.parameters(), 0, set.rows.device());
  if (n == 0) return std::move(gram).finish().matrix;
  const Tensor at = f.to(DType::float64).contiguous();
  const std::vector<int64_t> labels = gather_rows(set.labels, s).to_vector<int64_t>();
  for (int64_t from = 0; from < n; from += gram_chunk) {
    const int64_t to = std::min(n, from + gram_chunk);
    const auto part = [&](const auto& values) {
      return std::span(values).subspan(static_cast<size_t>(from), static_cast<size_t>(to - from));
    };
    gram.add(weighted_rows(rows_at(set.rows, part(s)), at.slice(0, from, to), part(labels), loss));
  }
  return std::move(gram).finish().matrix;
}

Representation representation_of(const std::string& name) {
  if (name == "auto") return Representation::automatic;
  if (name == "primal") return Representation::primal;
  if (name == "dual") return Representation::dual;
  require_usage(name == "matrix-free",
                "there is no representation '{}' of a system; there are auto, primal, dual and matrix-free", name);
  return Representation::matrix_free;
}

RidgeSystem::RidgeSystem(const LinearisedSet& set, Positions positions, double ridge, Representation representation,
                         std::string name)
    : set_(&set), positions_(std::move(positions)) {
  require(ridge > 0, "the ridge ρ must be positive, got {}", ridge);
  if (set.products) {
    require_usage(representation == Representation::automatic || representation == Representation::matrix_free,
                  "a primal or dual system needs the rows of J, which a matrix-free set has not");
    const int64_t P = set.parameters();
    preconditioner_ = std::make_unique<NystromPreconditioner>(
        [&](const Tensor& x) { return set_->products->gram_times(positions_, x); }, P, std::min(P, preconditioner_rank),
        ridge);
    report_ = {.name = std::move(name),
               .representation = "matrix-free",
               .unknowns = P,
               .ridge = ridge,
               .condition_estimate = (preconditioner_->eigenvalues().front() + ridge) / ridge};
    return;
  }
  require_usage(representation != Representation::matrix_free,
                "a matrix-free system needs products with J, but this set has its rows");
  const int64_t dual_size = static_cast<int64_t>(positions_.size()) * set.classes();
  const bool primal = representation == Representation::primal || dual_size == 0 ||
                      (representation == Representation::automatic && set.parameters() <= dual_size);
  if (primal) {
    static const Loss& identity = find_loss("mse");
    matrix_ = std::make_unique<SymmetricMatrix>(weighted_gram(set, positions_, identity, set.logits));
  } else {
    matrix_ = std::make_unique<SymmetricMatrix>(dual_gram(rows_at(set.rows, positions_)));
  }
  factor_ = std::make_unique<Cholesky>(matrix_->clone(), ridge, set.rows.device());
  report_ = {.name = std::move(name),
             .representation = primal ? "primal" : "dual",
             .unknowns = matrix_->size(),
             .ridge = ridge,
             .condition_estimate = factor_->condition_estimate()};
}

RidgeSystem::RidgeSystem(SymmetricMatrix gram, double ridge, std::string name)
    : matrix_(std::make_unique<SymmetricMatrix>(std::move(gram))) {
  factor_ = std::make_unique<Cholesky>(matrix_->clone(), ridge);
  report_ = {.name = std::move(name),
             .representation = "primal",
             .unknowns = matrix_->size(),
             .ridge = ridge,
             .condition_estimate = factor_->condition_estimate()};
}

Tensor RidgeSystem::refined(const Tensor& b) {
  const double ridge = report_.ridge;
  const Refinement r = refine(
      *factor_,
      [&](const Tensor& x) {
        Tensor y = matrix_->multiply(x);
        double* const out = y.mutable_data<double>();
        const double* const in = x.data<double>();
        for (int64_t i = 0; i < y.elements(); i++) out[i] += ridge * in[i];
        return y;
      },
      b);
  report_.relative_residual = std::max(report_.relative_residual, r.relative_residual);
  report_.refinement_steps = std::max(report_.refinement_steps, r.steps);
  return r.x;
}

Tensor RidgeSystem::solve_rows(const Tensor& residuals) {
  require(set_ != nullptr, "a system made from a matrix has no rows");
  if (preconditioner_) {
    // Products in float32 carry its rounding, so that a smaller residual would be one of the recursion only.
    const double target = set_->products->dtype() == DType::float64 ? 1e-12 : 1e-7;
    const ConjugateGradients found =
        conjugate_gradients([&](const Tensor& x) { return set_->products->gram_times(positions_, x); }, report_.ridge,
                            set_->products->transposed_times(positions_, residuals), preconditioner_.get(), target);
    report_.relative_residual = std::max(report_.relative_residual, found.relative_residual);
    report_.refinement_steps = std::max(report_.refinement_steps, found.steps);
    return found.x;
  }
  if (report_.representation == "primal") return refined(transposed_rows_times(*set_, positions_, residuals));
  return transposed_rows_times(*set_, positions_,
                               refined(residuals.to(DType::float64).contiguous().reshape({residuals.elements()})));
}

Tensor RidgeSystem::solve(const Tensor& b) {
  require(report_.representation == "primal", "(A + ρI)⁻¹ b is for primal systems");
  return refined(b);
}

}  // namespace fastntk
