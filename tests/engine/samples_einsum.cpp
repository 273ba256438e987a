// Einstein summation.
#include <algorithm>

#include "engine/ops/einsum.h"
#include "engine/samples.h"

namespace fastntk::test {
namespace {

// Every letter runs over its extent; letters stand for themselves only, no "...".
Array summed(const std::string& a, const std::string& b, const std::string& out, const Array& x, const Array& y) {
  std::string letters = out;
  for (const char c : a + b)
    if (letters.find(c) == std::string::npos) letters += c;
  Shape extents;
  for (const char c : letters) {
    int64_t extent = 1;
    for (size_t i = 0; i < a.size(); i++)
      if (a[i] == c) extent = std::max(extent, x.shape[static_cast<int>(i)]);
    for (size_t i = 0; i < b.size(); i++)
      if (b[i] == c) extent = std::max(extent, y.shape[static_cast<int>(i)]);
    extents.push_back(extent);
  }
  const auto at = [&](const std::string& term, const Shape& index) {
    Shape own;
    for (const char c : term) own.push_back(index[static_cast<int>(letters.find(c))]);
    return own;
  };
  Array result(extents.leading(static_cast<int>(out.size())));
  for_each_index(extents, [&](const Shape& index) { result(at(out, index)) += x(at(a, index)) * y(at(b, index)); });
  return result;
}

// `plain` is the equation without "...".
Sample einsum_sample(const std::string& equation, const Shape& a, const Shape& b, int64_t samples,
                     const std::string& plain = {}) {
  const std::string letters = plain.empty() ? equation : plain;
  const size_t comma = letters.find(','), arrow = letters.find("->");
  const std::string left = letters.substr(0, comma), right = letters.substr(comma + 1, arrow - comma - 1),
                    out = letters.substr(arrow + 2);
  return {.op = "einsum",
          .note = equation,
          .inputs = {{a}, {b}},
          .function = [=](const Values& v) { return einsum(equation, v[0], v[1]); },
          .reference = [=](const Arrays& x) { return summed(left, right, out, x[0], x[1]); },
          .samples = samples,
          .composition = true};
}

}  // namespace

Samples einsum_samples() {
  Samples all = {
      einsum_sample("nij,njk->nik", {2, 3, 4}, {2, 4, 5}, 2),
      einsum_sample("nij,njk->nik", {2, 3, 4}, {1, 4, 5}, 2),
      einsum_sample("nti,noi->nto", {2, 3, 4}, {2, 5, 4}, 2),
      einsum_sample("nti,oi->nto", {2, 3, 4}, {5, 4}, 0),
      einsum_sample("oi,nti->nto", {5, 4}, {2, 3, 4}, 0),
      einsum_sample("ij,jk->ik", {3, 4}, {4, 5}, 0),
      einsum_sample("ij,jk->ki", {3, 4}, {4, 5}, 0),
      einsum_sample("nhqd,nhkd->nhqk", {2, 2, 3, 4}, {2, 2, 5, 4}, 2),
      einsum_sample("nqhd,nkhd->nhqk", {2, 3, 2, 4}, {2, 5, 2, 4}, 2),
      einsum_sample("nijk,njk->ni", {2, 3, 2, 4}, {2, 2, 4}, 2),
      einsum_sample("nijk,njl->nli", {2, 3, 2, 4}, {2, 2, 5}, 2),
      einsum_sample("ni,ni->n", {2, 5}, {2, 5}, 2),
      einsum_sample("ni,ni->ni", {2, 5}, {1, 5}, 2),
      einsum_sample("ni,nj->nij", {2, 3}, {2, 4}, 2),
      einsum_sample("ni,nj->nji", {2, 3}, {2, 4}, 2),
      einsum_sample("nij,nkl->n", {2, 3, 2}, {2, 2, 4}, 2),
      einsum_sample("...ij,...jk->...ik", {2, 3, 2, 4}, {2, 1, 4, 3}, 2, "nmij,nmjk->nmik"),
      einsum_sample("n...i, ni -> n...", {2, 3, 2, 4}, {2, 4}, 2, "nabi,ni->nab"),
  };
  const auto refused = [](const std::string& equation, const Shape& a, const Shape& b) {
    return Refusal{{a, b}, [=](const Values& v) { return einsum(equation, v[0], v[1]); }};
  };
  // With one sample, the sum over the axis that b broadcasts along is part of the product.
  for (Sample& s : all)
    if (s.note == "...ij,...jk->...ik") s.equal_bits = false;
  all[0].refusals = {
      {{{2, 3, 4}, {2, 5, 4}}},
      {{{2, 3, 4}, {3, 4, 5}}},
      {{{2, 3, 4}, {2, 1, 5}}},
      {{{2, 3, 4, 1}, {2, 4, 5}}},
      refused("nij,njk", {2, 3, 4}, {2, 4, 5}),
      refused("nij->ni", {2, 3, 4}, {2, 4, 5}),
      refused("nij,njk,k->ni", {2, 3, 4}, {2, 4, 5}),
      refused("nii,nik->nk", {2, 3, 3}, {2, 3, 5}),
      refused("nij,njk->nn", {2, 3, 4}, {2, 4, 5}),
      refused("nij,njk->nl", {2, 3, 4}, {2, 4, 5}),
      refused("n1j,njk->nk", {2, 3, 4}, {2, 4, 5}),
      refused("...j,...jk->k", {2, 3, 4}, {2, 4, 5}),
      refused("n...,njk->n...", {}, {2, 4, 5}),
  };
  return all;
}

}  // namespace fastntk::test
