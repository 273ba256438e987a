// Derivatives of functions that are written in ops: a tape is made, used and dropped inside. For whoever applies one
// linearisation many times there is engine/tape.h; for models, training/curvature.h and unlearn/jacobian.h.
// docs/functional.md is the chapter.
#pragma once
#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/tape.h"

namespace fastntk {

using Tensors = std::vector<Tensor>;

/// A differentiable function of one or more tensors, made implicitly from anything that can be called with one, two or
/// three Variables, or with a std::vector<Variable> (or a span) of them, and returns one. It must compute by ops alone,
/// and the same thing every time it is called.
class Function {
 public:
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, Function> &&
             (std::is_invocable_r_v<Variable, F&, const Variable&> ||
              std::is_invocable_r_v<Variable, F&, const Variable&, const Variable&> ||
              std::is_invocable_r_v<Variable, F&, const Variable&, const Variable&, const Variable&> ||
              std::is_invocable_r_v<Variable, F&, const std::vector<Variable>&>))
  Function(F&& f) : call_(adapt(std::forward<F>(f))) {}  // NOLINT: a callable is a function

  /// Error when the number of inputs is not the function's.
  Variable operator()(const std::vector<Variable>& inputs) const { return call_(inputs); }

 private:
  using Call = std::function<Variable(const std::vector<Variable>&)>;
  static void check_count(size_t expected, size_t got) {
    require(expected == got, "a function of {} inputs was given {}", expected, got);
  }
  template <class F>
  static Call adapt(F&& f) {
    using G = std::decay_t<F>;
    if constexpr (std::is_invocable_r_v<Variable, G&, const Variable&>)
      return [g = G(std::forward<F>(f))](const std::vector<Variable>& x) mutable -> Variable {
        check_count(1, x.size());
        return g(x[0]);
      };
    else if constexpr (std::is_invocable_r_v<Variable, G&, const Variable&, const Variable&>)
      return [g = G(std::forward<F>(f))](const std::vector<Variable>& x) mutable -> Variable {
        check_count(2, x.size());
        return g(x[0], x[1]);
      };
    else if constexpr (std::is_invocable_r_v<Variable, G&, const Variable&, const Variable&, const Variable&>)
      return [g = G(std::forward<F>(f))](const std::vector<Variable>& x) mutable -> Variable {
        check_count(3, x.size());
        return g(x[0], x[1], x[2]);
      };
    else
      return Call(std::forward<F>(f));
  }
  Call call_;
};

/// f(x) and J v.
struct Jvp {
  Tensor value, tangent;
};
/// One tangent per input, of its shape or with the same extra leading axes [K, …]; an undefined one is zero. The result
/// has those axes too.
Jvp jvp(const Function& f, const Tensors& x, const Tensors& v);
Jvp jvp(const Function& f, const Tensor& x, const Tensor& v);

/// f(x), and Jᵀ u for as many u as wanted. Keeps what the linear map needs for as long as it lives.
class Pullback {
 public:
  const Tensor& value() const { return value_; }
  /// Jᵀ u, one per input, for u of the value's shape, or [K, …] for K at once.
  Tensors operator()(const Tensor& u) const;

 private:
  friend Pullback vjp(const Function& f, const Tensors& x);
  std::unique_ptr<Tape> tape_;
  std::vector<Variable> leaves_;
  Variable output_;
  Tensor value_;
};
Pullback vjp(const Function& f, const Tensors& x);
Pullback vjp(const Function& f, const Tensor& x);

/// ∂f/∂x for each input: the shape of the value followed by that of the input. Goes forwards when the inputs have fewer
/// elements than the value, backwards otherwise.
Tensors jacobian(const Function& f, const Tensors& x);
Tensor jacobian(const Function& f, const Tensor& x);

/// ∇²f v for f with one element: the jvp of the recorded vjp (Pearlmutter, "Fast exact multiplication by the Hessian",
/// 1994). Tangents as in jvp; one product per input. Error when an op has no second derivative.
Tensors hvp(const Function& f, const Tensors& x, const Tensors& v);
Tensor hvp(const Function& f, const Tensor& x, const Tensor& v);

/// Jᵀ ∇²ℓ(f(x)) J v for f with any value and ℓ(value) with one element: the generalised Gauss-Newton product
/// (Schraudolph 2002). Positive semi-definite where ℓ is convex.
Tensors ggn_vp(const Function& f, const Function& loss, const Tensors& x, const Tensors& v);
Tensor ggn_vp(const Function& f, const Function& loss, const Tensor& x, const Tensor& v);

/// f(θ, x) with one value per sample: x [N, …] → [N, …]. Each parameter arrives with an explicit leading axis, [1, …]
/// or one copy per sample [N, …], as in a module.
using ParametricFunction = std::function<Variable(const std::vector<Variable>& theta, const Variable& x)>;

/// Rows [N, C, P]: ∂f_c(x_i)/∂θ, all parameters end to end, each in row-major order; C is the number of elements of
/// a sample's value.
Tensor jacobian_rows(const ParametricFunction& f, const Tensors& theta, const Tensor& x);
/// Θ = J(X1) J(X2)ᵀ [N1·C, N2·C], float64: the neural tangent kernel (Jacot, Gabriel and Hongler 2018). Rows and
/// columns (sample, element of the value), the latter fastest.
Tensor ntk(const ParametricFunction& f, const Tensors& theta, const Tensor& x1, const Tensor& x2);

}  // namespace fastntk
