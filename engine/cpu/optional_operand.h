// What kernels with optional operands share: pointers that may be null, and how much work makes an item.
#pragma once
#include <algorithm>
#include <cstdint>

#include "engine/tensor.h"

namespace fastntk::cpu {

template <class T>
const T* data_or_null(const Tensor* t) {
  return t ? t->data<T>() : nullptr;
}
template <class T>
T* mutable_or_null(Tensor* t) {
  return t ? t->mutable_data<T>() : nullptr;
}
template <class T>
T* offset(T* p, int64_t n) {
  return p ? p + n : p;
}
/// Rows or images per item, so that an item is worth a thread's attention.
inline int64_t grain(int64_t elements) { return std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, elements)); }

}  // namespace fastntk::cpu
