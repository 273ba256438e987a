#include "engine/ops/einsum.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "engine/ops/elementwise.h"
#include "engine/ops/linear.h"
#include "engine/ops/reduce.h"

namespace fastntk {
namespace {

using Labels = std::vector<int>;  // one per axis: a letter, or `ellipsis` + the distance from the last axis of a "..."
constexpr int ellipsis = 256;

bool has(const Labels& labels, int label) { return std::find(labels.begin(), labels.end(), label) != labels.end(); }
Labels operator+(Labels a, const Labels& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::string name_of(int label) {
  return label < ellipsis ? std::string(1, static_cast<char>(label)) : std::string("an axis of ...");
}

class Equation {
 public:
  Equation(std::string_view equation, const Shape& a, const Shape& b) : text_(equation) {
    std::string spaceless;
    for (const char c : equation)
      if (c != ' ') spaceless += c;
    const size_t comma = spaceless.find(','), arrow = spaceless.find("->");
    require(arrow != std::string::npos && comma != std::string::npos && comma < arrow &&
                spaceless.find(',', comma + 1) == std::string::npos,
            "einsum \"{}\": expected two operands and a result, as in \"ij,jk->ik\"", text_);
    left = parse(spaceless.substr(0, comma), a.rank());
    right = parse(spaceless.substr(comma + 1, arrow - comma - 1), b.rank());
    int axes = 0;  // that "..." stands for
    while (has(left, ellipsis + axes) || has(right, ellipsis + axes)) axes++;
    const std::string out = spaceless.substr(arrow + 2);
    const bool dots = out.find("...") != std::string::npos;
    require(dots || axes == 0, "einsum \"{}\": \"...\" stands for {} axes, which are missing in the result", text_,
            axes);
    result = parse(out, static_cast<int>(out.size()) + (dots ? axes - 3 : 0));
    for (const int label : result)
      require(has(left, label) || has(right, label), "einsum \"{}\": no operand has {}, which the result asks for",
              text_, name_of(label));
    for (size_t i = 0; i < left.size(); i++)
      for (size_t j = 0; j < right.size(); j++) {
        if (left[i] != right[j]) continue;
        const int64_t x = a[static_cast<int>(i)], y = b[static_cast<int>(j)];
        require(x == y || (has(result, left[i]) && (x == 1 || y == 1)),
                "einsum \"{}\": {} is {} in one operand and {} in the other ({} and {})", text_, name_of(left[i]), x, y,
                a.str(), b.str());
      }
  }
  Labels left, right, result;

 private:
  Labels parse(const std::string& term, int rank) const {
    Labels labels;
    const size_t dots = term.find("...");
    const int letters = static_cast<int>(term.size()) - (dots == std::string::npos ? 0 : 3);
    require(dots == std::string::npos ? letters == rank : letters <= rank,
            "einsum \"{}\": \"{}\" names {} axes, but its tensor has {}", text_, term, letters, rank);
    for (size_t i = 0; i < term.size(); i++) {
      if (i == dots) {
        for (int axis = rank - letters; axis-- > 0;) labels.push_back(ellipsis + axis);
        i += 2;
        continue;
      }
      require(std::isalpha(static_cast<unsigned char>(term[i])), "einsum \"{}\": '{}' is not a letter", text_, term[i]);
      require(!has(labels, term[i]), "einsum \"{}\": {} appears twice in \"{}\", and diagonals are not supported",
              text_, term[i], term);
      labels.push_back(term[i]);
    }
    return labels;
  }
  std::string text_;
};

// A tensor and the labels of its axes.
struct Operand {
  Variable value;
  Labels labels;

  int64_t extent(int label) const {
    const auto at = std::find(labels.begin(), labels.end(), label);
    return at == labels.end() ? 1 : value.extent(static_cast<int>(at - labels.begin()));
  }
  Shape extents(const Labels& some) const {
    Shape shape;
    for (const int label : some) shape.push_back(extent(label));
    return shape;
  }
  // Sums over the axes that nobody asks for.
  void sum_over_all_but(const Labels& wanted) {
    std::vector<int> axes;
    Labels rest;
    for (size_t i = 0; i < labels.size(); i++)
      if (has(wanted, labels[i]))
        rest.push_back(labels[i]);
      else
        axes.push_back(static_cast<int>(i));
    if (axes.empty()) return;
    const Shape shape = extents(rest);
    *this = {reshape(sum(value, axes), shape), rest};
  }
  // Its axes in this order; those it lacks are left out.
  Variable in_order(const Labels& order) const {
    std::vector<int> axes;
    for (const int label : order)
      if (const auto at = std::find(labels.begin(), labels.end(), label); at != labels.end())
        axes.push_back(static_cast<int>(at - labels.begin()));
    return std::is_sorted(axes.begin(), axes.end()) ? value : permute(value, axes);
  }
};

}  // namespace

Variable einsum(std::string_view equation, const Variable& a, const Variable& b) {
  const Equation e(equation, a.shape(), b.shape());
  Operand x{a, e.left}, y{b, e.right};
  x.sum_over_all_but(e.result + e.right);
  y.sum_over_all_but(e.result + e.left);

  Labels batch, rows, columns, summed;
  for (const int label : e.result) {
    const bool samples = label == e.result[0] &&
                         ((!x.labels.empty() && x.labels[0] == label) || (!y.labels.empty() && y.labels[0] == label));
    if (samples || (has(x.labels, label) && has(y.labels, label)))
      batch.push_back(label);
    else
      (has(x.labels, label) ? rows : columns).push_back(label);
  }
  for (const int label : x.labels)
    if (!has(e.result, label)) summed.push_back(label);

  if (summed.empty())
    return reshape(x.in_order(e.result), x.extents(e.result)) * reshape(y.in_order(e.result), y.extents(e.result));

  const int64_t terms = x.extents(summed).elements();
  const Variable left =
      reshape(x.in_order(batch + rows + summed), x.extents(batch) + Shape{x.extents(rows).elements(), terms});
  const Variable right =
      reshape(y.in_order(batch + summed + columns), y.extents(batch) + Shape{terms, y.extents(columns).elements()});
  const Variable product = matmul(left, right);
  Operand out{reshape(product, product.shape().leading(product.rank() - 2) + x.extents(rows) + y.extents(columns)),
              batch + rows + columns};
  return out.in_order(e.result);
}

}  // namespace fastntk
