// One element's step of a first-order optimiser, one source for every backend; as in torch.optim.
#pragma once
#include <cmath>

#include "engine/backend.h"

namespace fastntk {

template <class T>
struct SgdFormula {
  T rate, momentum, decay;
  bool nesterov, first;

  explicit SgdFormula(const Backend::SgdStep& s)
      : rate(static_cast<T>(s.rate)),
        momentum(static_cast<T>(s.momentum)),
        decay(static_cast<T>(s.decay)),
        nesterov(s.nesterov),
        first(s.first) {}
  FASTNTK_HOST_DEVICE void operator()(T& theta, T gradient, T& velocity) const {
    const T g = gradient + decay * theta;
    velocity = first ? g : momentum * velocity + g;
    theta -= rate * (nesterov ? g + momentum * velocity : velocity);
  }
};

template <class T>
struct AdamFormula {
  T decay, beta1, beta2, step, root, epsilon, shrink;
  bool decoupled;

  explicit AdamFormula(const Backend::AdamStep& s)
      : decay(static_cast<T>(s.decay)),
        beta1(static_cast<T>(s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        step(static_cast<T>(s.rate / (1 - std::pow(s.beta1, static_cast<double>(s.steps))))),
        root(static_cast<T>(1 / std::sqrt(1 - std::pow(s.beta2, static_cast<double>(s.steps))))),
        epsilon(static_cast<T>(s.epsilon)),
        shrink(static_cast<T>(1 - s.rate * s.decay)),
        decoupled(s.decoupled) {}
  FASTNTK_HOST_DEVICE void operator()(T& theta, T gradient, T& mean, T& square) const {
    const T g = decoupled ? gradient : gradient + decay * theta;
    mean = beta1 * mean + (1 - beta1) * g;
    square = beta2 * square + (1 - beta2) * g * g;
    if (decoupled) theta *= shrink;
    theta -= step * mean / (std::sqrt(square) * root + epsilon);
  }
};

}  // namespace fastntk
