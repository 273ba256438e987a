#include "datasets/split.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "engine/file.h"
#include "engine/parse_number.h"
#include "engine/random.h"

namespace fastntk {
namespace {

// Random numbers for splits are a stream of their own: the same seed serves initialisation and batch order too.
constexpr uint64_t split_stream = 0x73706c6974;  // "split"

std::vector<std::string_view> words_of(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> words;
  for (size_t at = 0; (at = text.find_first_not_of(separators, at)) != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

// Whole numbers ≥ 0 as a list of ranges [first, last], none of which overlap.
class Ranges {
 public:
  struct Range {
    int64_t first, last;
  };

  // `rule` is what errors name.
  static Ranges parse(const std::vector<std::string_view>& words, std::string_view rule) {
    Ranges result;
    for (const std::string_view word : words) {
      const size_t dash = word.find('-');
      const auto first = parse_number<int64_t>(word.substr(0, dash));
      const auto last = dash == std::string_view::npos ? first : parse_number<int64_t>(word.substr(dash + 1));
      require_usage(first && last && *first >= 0 && *last >= 0, "{}: \"{}\" is neither a number nor a range like 3-7",
                    rule, word);
      require_usage(*first <= *last, "{}: the range {} ends before it begins", rule, word);
      result.given_.push_back({*first, *last});
    }
    result.sorted_ = result.given_;
    std::sort(result.sorted_.begin(), result.sorted_.end(),
              [](const Range& a, const Range& b) { return a.first < b.first; });
    for (size_t i = 1; i < result.sorted_.size(); i++)
      require_usage(result.sorted_[i - 1].last < result.sorted_[i].first, "{}: {} appears twice", rule,
                    result.sorted_[i].first);
    return result;
  }

  // As given, separated by commas.
  std::string str() const {
    std::string text;
    for (const auto& [first, last] : given_) {
      if (!text.empty()) text += ',';
      text += first == last ? std::to_string(first) : fmt::format("{}-{}", first, last);
    }
    return text;
  }
  bool contains(int64_t value) const {
    const auto after = std::upper_bound(sorted_.begin(), sorted_.end(), value,
                                        [](int64_t v, const Range& range) { return v < range.first; });
    return after != sorted_.begin() && value <= std::prev(after)->last;
  }
  int64_t largest() const { return sorted_.back().last; }
  // The smallest number in the ranges that is not among `values`, which are ascending.
  std::optional<int64_t> first_not_in(const std::vector<int64_t>& values) const {
    for (const auto& [first, last] : sorted_) {
      auto at = std::lower_bound(values.begin(), values.end(), first);
      for (int64_t expected = first; expected <= last; expected++, at++)
        if (at == values.end() || *at != expected) return expected;
    }
    return std::nullopt;
  }

 private:
  std::vector<Range> given_, sorted_;
};

template <class Keep>
std::vector<int64_t> filtered(const std::vector<int64_t>& candidates, const Keep& keep) {
  std::vector<int64_t> chosen;
  std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(chosen), keep);
  return chosen;
}

int64_t id_at(const Dataset& data, int64_t position) { return data.ids()[static_cast<size_t>(position)]; }

std::vector<int64_t> ordered_by_id(const Dataset& data, std::vector<int64_t> positions) {
  std::sort(positions.begin(), positions.end(), [&](int64_t a, int64_t b) { return id_at(data, a) < id_at(data, b); });
  return positions;
}

struct AllRule : SplitRule {
  std::string str() const override { return "all"; }
  std::vector<int64_t> choose(const Dataset&, const std::vector<int64_t>& candidates, uint64_t) const override {
    return candidates;
  }
};

struct ClassRule : SplitRule {
  explicit ClassRule(Ranges list) : classes(std::move(list)) {}
  Ranges classes;

  std::string str() const override { return "class:" + classes.str(); }
  std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates, uint64_t) const override {
    require_usage(classes.largest() < data.classes(), "{}: the data set {} has {} classes, 0-{}; there is no class {}",
                  str(), data.name(), data.classes(), data.classes() - 1, classes.largest());
    const int64_t* const label = data.labels().data<int64_t>();
    return filtered(candidates, [&](int64_t p) { return classes.contains(label[p]); });
  }
};

struct RangeRule : SplitRule {
  explicit RangeRule(Ranges list) : ids(std::move(list)) {}
  Ranges ids;

  std::string str() const override { return ids.str(); }
  std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates, uint64_t) const override {
    require_usage(ids.largest() < data.published_size(), "{}: the data set {} has the ids 0-{}, not {}", str(),
                  data.name(), data.published_size() - 1, ids.largest());
    return filtered(candidates, [&](int64_t p) { return ids.contains(id_at(data, p)); });
  }
};

struct IdsRule : SplitRule {
  IdsRule(Ranges list, std::string written) : ids(std::move(list)), text(std::move(written)) {}
  Ranges ids;
  std::string text;

  std::string str() const override { return text; }
  std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates, uint64_t) const override {
    std::vector<int64_t> present = data.ids();
    std::sort(present.begin(), present.end());
    const auto missing = ids.first_not_in(present);
    require_usage(!missing, "{}: there is no sample with the id {} among the {} of the data set {}", str(),
                  missing.value_or(0), data.size(), data.name());
    return filtered(candidates, [&](int64_t p) { return ids.contains(id_at(data, p)); });
  }
};

struct FirstRule : SplitRule {
  explicit FirstRule(int64_t n) : count(n) {}
  int64_t count;

  std::string str() const override { return fmt::format("first:{}", count); }
  std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates, uint64_t) const override {
    require_usage(count <= static_cast<int64_t>(candidates.size()), "{}: there are only {} samples to choose from",
                  str(), candidates.size());
    std::vector<int64_t> chosen = ordered_by_id(data, candidates);
    chosen.resize(static_cast<size_t>(count));
    return chosen;
  }
};

struct PerClassRule : SplitRule {
  explicit PerClassRule(int64_t n) : count(n) {}
  int64_t count;

  std::string str() const override { return fmt::format("per-class:{}", count); }
  std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates, uint64_t) const override {
    const int64_t* const label = data.labels().data<int64_t>();
    std::vector<int64_t> found(static_cast<size_t>(data.classes())), chosen;
    for (const int64_t p : ordered_by_id(data, candidates))
      if (found[static_cast<size_t>(label[p])]++ < count) chosen.push_back(p);
    for (size_t c = 0; c < found.size(); c++)
      require_usage(found[c] == 0 || found[c] >= count, "{}: there are only {} samples of class {} to choose from",
                    str(), found[c], c);
    return chosen;
  }
};

struct RandomRule : SplitRule {
  RandomRule(double part, std::optional<uint64_t> own_seed) : fraction(part), fixed_seed(own_seed) {}
  double fraction;
  std::optional<uint64_t> fixed_seed;

  std::string str() const override {
    return fmt::format("random:{}", fraction) + (fixed_seed ? fmt::format("@{}", *fixed_seed) : "");
  }
  std::vector<int64_t> choose(const Dataset& data, const std::vector<int64_t>& candidates,
                              uint64_t seed) const override {
    const Random random(fixed_seed.value_or(seed), split_stream);
    std::vector<std::pair<uint64_t, int64_t>> keys;
    keys.reserve(candidates.size());
    for (const int64_t p : candidates) keys.emplace_back(random.bits(static_cast<uint64_t>(id_at(data, p))), p);
    std::sort(keys.begin(), keys.end());
    keys.resize(static_cast<size_t>(std::llround(fraction * static_cast<double>(candidates.size()))));
    std::vector<int64_t> chosen;
    chosen.reserve(keys.size());
    for (const auto& [key, position] : keys) chosen.push_back(position);
    return chosen;
  }
};

constexpr std::string_view white_space = " \t\r\n";

int64_t parse_count(std::string_view argument, std::string_view rule) {
  const auto count = parse_number<int64_t>(argument);
  require_usage(count && *count >= 0, "{}: a number of samples was expected after the colon", rule);
  return *count;
}

Ranges parse_list(std::string_view argument, std::string_view rule) {
  const auto words = words_of(argument, ",");
  require_usage(!words.empty(), "{}: numbers or ranges like 3-7 were expected after the colon", rule);
  return Ranges::parse(words, rule);
}

std::shared_ptr<SplitRule> parse_random(std::string_view argument, std::string_view rule) {
  const size_t at = argument.find('@');
  const auto fraction = parse_number<double>(argument.substr(0, at));
  require_usage(fraction && *fraction >= 0 && *fraction <= 1, "{}: a fraction between 0 and 1 was expected", rule);
  if (at == std::string_view::npos) return std::make_shared<RandomRule>(*fraction, std::nullopt);
  const auto seed = parse_number<uint64_t>(argument.substr(at + 1));
  require_usage(seed.has_value(), "{}: a seed (a number from 0 on) was expected after the @", rule);
  return std::make_shared<RandomRule>(*fraction, seed);
}

// Separated by white space or commas.
Ranges ids_of(std::string_view text, std::string_view source) {
  return Ranges::parse(words_of(text, std::string(white_space) + ","), source);
}

std::shared_ptr<SplitRule> ids_from_file(const std::string& path) {
  return std::make_shared<IdsRule>(ids_of(read_file(path), path), "ids-file:" + path);
}

std::shared_ptr<SplitRule> parse_rule(std::string_view rule) {
  if (rule == "all") return std::make_shared<AllRule>();
  if (rule.front() >= '0' && rule.front() <= '9') {
    require_usage(rule.find('-') != std::string_view::npos,
                  "the rule \"{}\" is not clear: ids:{} is the sample with this id, first:{} are this many samples",
                  rule, rule, rule);
    return std::make_shared<RangeRule>(parse_list(rule, rule));
  }
  const size_t colon = std::min(rule.find(':'), rule.size());
  const std::string_view name = rule.substr(0, colon);
  const std::string_view argument = rule.substr(std::min(colon + 1, rule.size()));
  if (name == "class") return std::make_shared<ClassRule>(parse_list(argument, rule));
  if (name == "first") return std::make_shared<FirstRule>(parse_count(argument, rule));
  if (name == "per-class") return std::make_shared<PerClassRule>(parse_count(argument, rule));
  if (name == "random") return parse_random(argument, rule);
  if (name == "ids") {
    const Ranges ids = parse_list(argument, rule);
    return std::make_shared<IdsRule>(ids, "ids:" + ids.str());
  }
  if (name == "ids-file") return ids_from_file(std::string(argument));
  throw UsageError(fmt::format(
      "unknown rule \"{}\"; known are all, class:LIST, FIRST-LAST, ids:LIST, ids-file:PATH, first:N, per-class:N and "
      "random:FRACTION",
      rule));
}

}  // namespace

Split Split::parse(std::string_view text) {
  Split split;
  for (const std::string_view rule : words_of(text, white_space)) split.rules_.push_back(parse_rule(rule));
  require_usage(!split.rules_.empty(), "a rule that chooses samples was expected, e.g. all, class:9 or random:0.1");
  return split;
}

Split Split::ids_in_text(std::string_view text) {
  const Ranges ids = ids_of(text, "the list of ids");
  Split split;
  split.rules_.push_back(std::make_shared<IdsRule>(ids, "ids:" + ids.str()));
  return split;
}

Split Split::ids_in_file(const std::string& path) {
  Split split;
  split.rules_.push_back(ids_from_file(path));
  return split;
}

std::string Split::str() const {
  std::string text;
  for (const auto& rule : rules_) text += (text.empty() ? "" : " ") + rule->str();
  return text;
}

std::vector<int64_t> Split::positions(const Dataset& data, uint64_t seed) const {
  std::vector<int64_t> chosen(static_cast<size_t>(data.size()));
  for (size_t i = 0; i < chosen.size(); i++) chosen[i] = static_cast<int64_t>(i);
  for (const auto& rule : rules_) {
    chosen = rule->choose(data, chosen, seed);
    std::sort(chosen.begin(), chosen.end());
  }
  return chosen;
}

ForgetRetain split_forget_retain(const Dataset& data, const Split& forget, uint64_t seed) {
  std::vector<int64_t> chosen = forget.positions(data, seed), rest;
  for (int64_t p = 0; p < data.size(); p++)
    if (!std::binary_search(chosen.begin(), chosen.end(), p)) rest.push_back(p);
  return {data.subset(chosen), data.subset(rest), chosen, rest};
}

}  // namespace fastntk
