#include "unlearn/matrix_free.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/device.h"
#include "engine/progress.h"
#include "engine/random.h"

namespace fastntk {
namespace {

// Samples that are recorded together; fixed, because sums follow it.
int64_t batch_on(Device device) { return device == Device::cpu ? 8 : 256; }

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Map = Eigen::Map<RowMajor>;
using ConstMap = Eigen::Map<const RowMajor>;

int64_t columns_of(const Tensor& x) { return x.rank() == 2 ? x.extent(1) : 1; }

// Samples recorded at the model's parameters, and the linear map of that record.
class RecordedBatch {
 public:
  RecordedBatch(const Module& model, const Subset& subset, const Tensor& inputs)
      : subset_(subset), pass_(Pass::shared(model, subset, tape_)), logits_(model.forward(pass_, inputs)) {}
  const Variable& logits() const { return logits_; }
  // J x for x [R, P]: [R, samples, C], undefined where it is zero.
  Variable times(const Tensor& x) {
    std::vector<std::pair<Variable, Variable>> tangents;
    for (size_t i = 0; i < subset_.entries.size(); i++) {
      const auto& e = subset_.entries[i];
      tangents.emplace_back(pass_.leaves()[i], x.slice(1, e.offset, e.offset + e.shape.elements())
                                                   .contiguous()
                                                   .reshape(Shape{x.extent(0)} + pass_.leaves()[i].shape()));
    }
    return tape_.jvp(tangents, logits_);
  }
  // Jᵀu for u [R, samples, C]: for each parameter [R, …], undefined where it is zero.
  std::vector<Tensor> transposed_times(const Variable& u) {
    std::vector<Tensor> out;
    for (const Variable& g : tape_.vjp(logits_, u, pass_.leaves()))
      out.push_back(g.defined() ? g.value.contiguous().to(Device::cpu) : Tensor());
    return out;
  }

 private:
  const Subset& subset_;
  Tape tape_;
  Pass pass_;
  Variable logits_;
};

// The model at other parameters, for a while.
class AtParameters {
 public:
  AtParameters(Module& model, const Subset& subset, const Tensor& theta)
      : model_(model), subset_(subset), before_(gather(model, subset)) {
    scatter(model_, subset_, theta);
  }
  ~AtParameters() { scatter(model_, subset_, before_); }
  AtParameters(const AtParameters&) = delete;
  AtParameters& operator=(const AtParameters&) = delete;

 private:
  Module& model_;
  const Subset& subset_;
  Tensor before_;
};

}  // namespace

JacobianOperator::JacobianOperator(Module& model, const Subset& subset, Tensor inputs, Tensor theta_star)
    : model_(model), subset_(subset), inputs_(std::move(inputs)), theta_star_(std::move(theta_star)) {
  require(inputs_.rank() >= 2 && inputs_.extent(0) > 0 && inputs_.dtype() == model.dtype(),
          "products with a Jacobian need inputs [n, …] of the model's type with n > 0, got {}", inputs_.describe());
  require(theta_star_.shape() == Shape{subset.size()}, "θ* of {} parameters, got {}", subset.size(),
          theta_star_.shape().str());
  classes_ = model.forward(Pass(), inputs_.slice(0, 0, 1).to(model.device())).extent(1);
}

// x: v as [R, P] in the model's type for forward and both, or u as [1, |S|, C] for backward. Results float64 [|S|, C,
// R] or [R, P].
Tensor JacobianOperator::apply(Product product, const std::vector<int64_t>& positions, const Tensor& x, int64_t stack,
                               const Tensor& weights) const {
  const auto n = static_cast<int64_t>(positions.size());
  const Device device = model_.device();
  const int64_t batch = batch_on(device);
  const int64_t C = classes_, P = parameters(), batches = (n + batch - 1) / batch;
  Tensor out = Tensor::zeros(product == Product::forward ? Shape{n, C, stack} : Shape{stack, P}, DType::float64);
  const AtParameters at(model_, subset_, theta_star_);
  // As many batches at once as there are threads; their sums are added in the order of the batches.
  const int64_t together = parts_at_once(device);
  const Tensor moved = x.to(device);
  for (int64_t group = 0; group < batches; group += together) {
    check_interrupt();
    const int64_t count = std::min(together, batches - group);
    std::vector<std::vector<Tensor>> parts(static_cast<size_t>(count));
    for_parts(device, count, [&](int64_t k) {
      const int64_t from = (group + k) * batch, to = std::min(n, from + batch), samples = to - from;
      RecordedBatch recorded(
          model_, subset_,
          rows_at(inputs_, std::span(positions).subspan(static_cast<size_t>(from), static_cast<size_t>(samples)))
              .to(device));
      const Variable& f = recorded.logits();
      if (!f.active()) return;
      Variable cotangent;
      if (product == Product::backward) {
        cotangent = moved.slice(1, from, to);
      } else {
        cotangent = recorded.times(moved);
        if (!cotangent.defined()) return;
        if (product == Product::forward) {
          out.slice(0, from, to).copy_from(cotangent.value.to(Device::cpu).to(DType::float64).permute({1, 2, 0}));
          return;
        }
        if (weights.defined()) {
          const Tensor df = cotangent.value.to(Device::cpu).to(DType::float64).contiguous();
          Tensor weighted = Tensor::zeros(df.shape(), DType::float64);
          const double* const lambda = weights.data<double>();
          for (int64_t r = 0; r < stack; r++)
            for (int64_t s = 0; s < samples; s++)
              for (int64_t c = 0; c < C; c++)
                for (int64_t d = 0; d < C; d++)
                  weighted.mutable_data<double>()[(r * samples + s) * C + c] +=
                      lambda[((from + s) * C + c) * C + d] * df.data<double>()[(r * samples + s) * C + d];
          cotangent = weighted.to(f.dtype()).to(device);
        }
      }
      parts[static_cast<size_t>(k)] = recorded.transposed_times(cotangent);
    });
    if (product == Product::forward) continue;
    double* const sum = out.mutable_data<double>();
    for (const auto& part : parts)
      for (size_t i = 0; i < part.size(); i++) {
        if (!part[i].defined()) continue;
        const Subset::Entry& e = subset_.entries[i];
        const int64_t length = e.shape.elements();
        for_floating(part[i].dtype(), "Jᵀu", [&](auto zero) {
          const auto* const from = part[i].data<decltype(zero)>();
          for (int64_t r = 0; r < stack; r++)
            for (int64_t p = 0; p < length; p++) sum[r * P + e.offset + p] += static_cast<double>(from[r * length + p]);
        });
      }
  }
  return out;
}

Tensor JacobianOperator::times(const std::vector<int64_t>& positions, const Tensor& v) const {
  require(v.rank() <= 2 && v.extent(0) == parameters(), "J v needs v [{}] or [{}, R], got {}", parameters(),
          parameters(), v.shape().str());
  const int64_t stack = columns_of(v);
  const Tensor rows = v.rank() == 2 ? v.transpose(0, 1).contiguous() : v.reshape({1, parameters()});
  const Tensor out = apply(Product::forward, positions, rows.to(inputs_.dtype()), stack, {});
  return v.rank() == 2 ? out : out.reshape({out.extent(0), classes_});
}

Tensor JacobianOperator::transposed_times(const std::vector<int64_t>& positions, const Tensor& u) const {
  const auto n = static_cast<int64_t>(positions.size());
  require(u.elements() == n * classes_, "Jᵀu needs u [{}, {}], got {}", n, classes_, u.shape().str());
  return apply(Product::backward, positions, u.contiguous().reshape({1, n, classes_}).to(inputs_.dtype()), 1, {})
      .reshape({parameters()});
}

Tensor JacobianOperator::gram_times(const std::vector<int64_t>& positions, const Tensor& v,
                                    const Tensor& weights) const {
  require(v.rank() <= 2 && v.extent(0) == parameters(), "JᵀΛJ v needs v [{}] or [{}, R], got {}", parameters(),
          parameters(), v.shape().str());
  const auto n = static_cast<int64_t>(positions.size());
  require(!weights.defined() || (weights.shape() == Shape({n, classes_, classes_}) && weights.is_contiguous()),
          "JᵀΛJ v needs Λ [{}, {}, {}]", n, classes_, classes_);
  const Tensor rows = v.rank() == 2 ? v.transpose(0, 1).contiguous() : v.reshape({1, parameters()});
  const Tensor out = apply(Product::both, positions, rows.to(inputs_.dtype()), columns_of(v), weights);
  return v.rank() == 2 ? out.transpose(0, 1).contiguous() : out.reshape({parameters()});
}

size_t measured_product_bytes(const Module& model, const Subset& subset, const Tensor& inputs, int64_t vectors) {
  const Device device = model.device();
  const int64_t n = inputs.extent(0), batch = batch_on(device), samples = std::min(batch, n),
                batches = (n + batch - 1) / batch;
  const Tensor x = Tensor::zeros({vectors, subset.size()}, inputs.dtype(), device);
  const auto product = [&] {
    RecordedBatch recorded(model, subset, inputs.slice(0, 0, samples).clone().to(device));
    if (!recorded.logits().active()) return;
    if (const Variable df = recorded.times(x); df.defined()) recorded.transposed_times(df);
  };
  product();  // packs weights and transforms them, once for all products
  const size_t before = memory_statistics(device).live;
  reset_peak_memory(device);
  product();
  return (memory_statistics(device).peak - before) *
         static_cast<size_t>(std::min<int64_t>(parts_at_once(device), batches));
}

NystromPreconditioner::NystromPreconditioner(const LinearOperator& a, int64_t n, int64_t rank, double ridge,
                                             uint64_t seed)
    : ridge_(ridge) {
  require(rank > 0 && rank <= n && ridge > 0, "a Nyström approximation of rank {} of a matrix of size {} at ρ = {}",
          rank, n, ridge);
  const Tensor drawn = Random(seed).normal_tensor({n, rank}, DType::float64);
  const Eigen::MatrixXd gaussian = ConstMap(drawn.data<double>(), n, rank);
  const Eigen::MatrixXd omega =
      Eigen::HouseholderQR<Eigen::MatrixXd>(gaussian).householderQ() * Eigen::MatrixXd::Identity(n, rank);
  Tensor test({n, rank}, DType::float64);
  Map(test.mutable_data<double>(), n, rank) = omega;
  const Tensor product = a(test).contiguous();
  Eigen::MatrixXd y = ConstMap(product.data<double>(), n, rank);
  // The shift of the published algorithm, taken off again below. A product through float32 is symmetric only to its
  // precision, so that the shift has to hide that much.
  const double asymmetry = (omega.transpose() * y - y.transpose() * omega).norm();
  const double shift =
      std::max(std::sqrt(static_cast<double>(n)) * std::numeric_limits<double>::epsilon() * y.norm(), 4 * asymmetry);
  y += shift * omega;
  const Eigen::MatrixXd core = omega.transpose() * y;
  const Eigen::LLT<Eigen::MatrixXd> factor(0.5 * (core + core.transpose()));
  require(factor.info() == Eigen::Success, "a Nyström approximation of an operator that is not positive semi-definite");
  const Eigen::MatrixXd b = factor.matrixL().solve(y.transpose()).transpose();
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(b, Eigen::ComputeThinU);
  for (Eigen::Index k = 0; k < rank; k++)
    eigenvalues_.push_back(std::max(0.0, svd.singularValues()[k] * svd.singularValues()[k] - shift));
  basis_ = Tensor({rank, n}, DType::float64);
  Map(basis_.mutable_data<double>(), rank, n) = svd.matrixU().transpose();
}

Tensor NystromPreconditioner::apply(const Tensor& x) const {
  const int64_t rank = basis_.extent(0), n = basis_.extent(1), columns = columns_of(x);
  Tensor out = x.contiguous().clone();
  Map y(out.mutable_data<double>(), n, columns);
  const ConstMap u(basis_.data<double>(), rank, n);
  RowMajor along = u * y;
  for (int64_t k = 0; k < rank; k++)
    along.row(k) *= (eigenvalues_.back() + ridge_) / (eigenvalues_[static_cast<size_t>(k)] + ridge_) - 1;
  y += u.transpose() * along;
  return out;
}

ConjugateGradients conjugate_gradients(const LinearOperator& a, double ridge, const Tensor& b,
                                       const NystromPreconditioner* preconditioner, double target, int max_steps) {
  require(ridge > 0 && b.dtype() == DType::float64 && b.rank() >= 1 && b.rank() <= 2,
          "conjugate gradients need ρ > 0 and float64 b [n] or [n, R], got ρ = {} and {}", ridge, b.describe());
  const int64_t n = b.extent(0), R = columns_of(b);
  const auto system = [&](const Tensor& x) {
    Tensor y = a(x).contiguous().clone();
    for (int64_t i = 0; i < y.elements(); i++) y.mutable_data<double>()[i] += ridge * x.data<double>()[i];
    return y;
  };
  const auto dots = [&](const Tensor& x, const Tensor& y) {
    std::vector<double> sums(static_cast<size_t>(R), 0.0);
    for (int64_t i = 0; i < n; i++)
      for (int64_t r = 0; r < R; r++)
        sums[static_cast<size_t>(r)] += x.data<double>()[i * R + r] * y.data<double>()[i * R + r];
    return sums;
  };
  // y ← factor_y y + factor_x x, column by column.
  const auto combine = [&](Tensor& y, const std::vector<double>& factor_y, const std::vector<double>& factor_x,
                           const Tensor& x) {
    double* const to = y.mutable_data<double>();
    for (int64_t i = 0; i < n; i++)
      for (int64_t r = 0; r < R; r++)
        to[i * R + r] = factor_y[static_cast<size_t>(r)] * to[i * R + r] +
                        factor_x[static_cast<size_t>(r)] * x.data<double>()[i * R + r];
  };
  const auto precondition = [&](const Tensor& r) { return preconditioner ? preconditioner->apply(r) : r.clone(); };
  const std::vector<double> ones(static_cast<size_t>(R), 1.0);

  ConjugateGradients out{.x = Tensor::zeros(b.shape(), DType::float64)};
  Tensor residual = b.contiguous().clone();
  const std::vector<double> size = dots(residual, residual);
  Tensor z = precondition(residual), direction = z.clone();
  std::vector<double> rz = dots(residual, z);
  const auto worst = [&](const Tensor& r) {
    const auto squares = dots(r, r);
    double most = 0;
    for (size_t k = 0; k < squares.size(); k++) {
      require(std::isfinite(squares[k]) && std::isfinite(size[k]),
              "conjugate gradients met a residual that is not finite after {} steps", out.steps);
      if (size[k] > 0) most = std::max(most, std::sqrt(squares[k] / size[k]));
    }
    return most;
  };
  double reached = worst(residual);
  while (reached > target) {
    require(out.steps < max_steps, "conjugate gradients reached a relative residual of {:.2e} in {} steps, not {:.2e}",
            reached, max_steps, target);
    check_interrupt();
    const Tensor product = system(direction);
    const std::vector<double> curvature = dots(direction, product), squares = dots(residual, residual);
    std::vector<double> step(static_cast<size_t>(R)), back(static_cast<size_t>(R)), keep(static_cast<size_t>(R));
    for (size_t k = 0; k < step.size(); k++) {
      const bool active = size[k] > 0 && std::sqrt(squares[k] / size[k]) > 0.1 * target && curvature[k] > 0;
      step[k] = active ? rz[k] / curvature[k] : 0;
      back[k] = -step[k];
    }
    combine(out.x, ones, step, direction);
    combine(residual, ones, back, product);
    z = precondition(residual);
    const std::vector<double> next = dots(residual, z);
    for (size_t k = 0; k < keep.size(); k++) keep[k] = rz[k] > 0 ? next[k] / rz[k] : 0;
    rz = next;
    combine(direction, keep, ones, z);
    out.steps++;
    reached = worst(residual);
  }
  Tensor left = system(out.x);
  for (int64_t i = 0; i < left.elements(); i++)
    left.mutable_data<double>()[i] = b.contiguous().data<double>()[i] - left.data<double>()[i];
  out.relative_residual = worst(left);
  return out;
}

}  // namespace fastntk
