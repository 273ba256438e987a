// Splits: what the rules choose, how they are written, and what they refuse.
#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

#include "datasets/idx.h"
#include "datasets/small_data.h"
#include "datasets/split.h"
#include "engine/file.h"
#include "temporary_folder.h"

using namespace fastntk;
using Ids = std::vector<int64_t>;

namespace {

Ids ids_chosen(const Dataset& data, const std::string& rules, uint64_t seed = 0) {
  return Split::parse(rules).select(data, seed).ids();
}

// The message of the UsageError that parsing, or choosing among 20 samples of 4 classes, must end with.
std::string refusal(const std::string& rules) {
  try {
    Split::parse(rules).positions(small_data(20, 4));
  } catch (const UsageError& e) {
    CHECK(std::string(e.what()).find('\n') == std::string::npos);
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("rules choose what they say", "[split]") {
  const Dataset data = small_data(20, 4);  // the label is the id mod 4
  CHECK(ids_chosen(data, "all") == data.ids());
  CHECK(ids_chosen(data, "class:3") == Ids{3, 7, 11, 15, 19});
  CHECK(ids_chosen(data, "class:0-1,3").size() == 15);
  CHECK(ids_chosen(data, "5-8") == Ids{5, 6, 7, 8});
  CHECK(ids_chosen(data, "18-19,2-3") == Ids{2, 3, 18, 19});
  CHECK(ids_chosen(data, "ids:17,1,5-6") == Ids{1, 5, 6, 17});
  CHECK(ids_chosen(data, "first:3") == Ids{0, 1, 2});
  CHECK(ids_chosen(data, "first:0").empty());
  CHECK(ids_chosen(data, "per-class:2") == Ids{0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(ids_chosen(data, "random:0").empty());
  CHECK(ids_chosen(data, "random:1") == data.ids());
  CHECK(ids_chosen(data, "random:0.25").size() == 5);
}

TEST_CASE("each rule chooses among what the rules before it have left", "[split]") {
  const Dataset data = small_data(20, 4);
  CHECK(ids_chosen(data, "0-9 class:0-1") == Ids{0, 1, 4, 5, 8, 9});
  CHECK(ids_chosen(data, "class:0-1 0-9") == Ids{0, 1, 4, 5, 8, 9});
  CHECK(ids_chosen(data, "10-19 per-class:1") == Ids{10, 11, 12, 13});
  CHECK(ids_chosen(data, "per-class:3 10-19") == Ids{10, 11});
  CHECK(ids_chosen(data, "  class:2\tfirst:2 ") == Ids{2, 6});
  CHECK(ids_chosen(data, "class:2 per-class:1") == Ids{2});  // classes that were left out are not missed
  CHECK(ids_chosen(data, "class:2 class:3").empty());
}

TEST_CASE("rules go by id, wherever the samples stand", "[split]") {
  const Ids backwards{19, 18, 17, 16, 15, 14, 13, 12, 11, 10};
  const Dataset data = small_data(20, 4).subset_by_id(backwards);
  CHECK(ids_chosen(data, "first:3") == Ids{12, 11, 10});
  CHECK(ids_chosen(data, "per-class:1") == Ids{13, 12, 11, 10});
  CHECK(ids_chosen(data, "0-12") == Ids{12, 11, 10});  // as published: 0-9 exist there
  CHECK(ids_chosen(data, "ids:12,17") == Ids{17, 12});
  CHECK(Split::parse("first:3").positions(data) == Ids{7, 8, 9});
}

TEST_CASE("a random choice depends on seed and ids alone", "[split]") {
  const Dataset data = small_data(200, 4);
  const Ids first = ids_chosen(data, "random:0.1", 1);
  CHECK(first.size() == 20);
  CHECK(ids_chosen(data, "random:0.1", 1) == first);
  CHECK(ids_chosen(data, "random:0.1", 2) != first);
  CHECK(ids_chosen(data, "random:0.1@1", 2) == first);
  CHECK(ids_chosen(data, "random:0.15", 1).size() == 30);
  Ids reversed = data.ids();
  std::reverse(reversed.begin(), reversed.end());
  Ids chosen = ids_chosen(data.subset_by_id(reversed), "random:0.1", 1);
  std::reverse(chosen.begin(), chosen.end());
  CHECK(chosen == first);
  // These bits are promised to anyone who repeats a run.
  CHECK(ids_chosen(small_data(20, 4), "random:0.25", 0) == Ids{2, 3, 5, 16, 17});
}

TEST_CASE("ids are read from a file", "[split]") {
  const TemporaryFolder folder;
  const Dataset data = small_data(20, 4);
  const std::string rule = "ids-file:" + folder.write("ids", "3\n1, 2\r\n\t17-18\n");
  CHECK(ids_chosen(data, rule) == Ids{1, 2, 3, 17, 18});
  CHECK(Split::parse(rule).str() == rule);
  CHECK(Split::ids_in_text("3 1,\n17-18").select(data).ids() == Ids{1, 3, 17, 18});
  CHECK(Split::ids_in_text("1 7").select(data).ids() == Ids{1, 7});  // and not 17
  CHECK_THROWS_AS(Split::ids_in_text("1 x"), UsageError);
  CHECK(Split::ids_in_file(folder.write("with a space", "2")).select(data).ids() == Ids{2});
  CHECK(ids_chosen(data, "ids-file:" + folder.write("none", "\n")).empty());
  const std::string bad = folder.write("bad", "3\nthree"), twice = folder.write("twice", "1 2 1");
  CHECK(refusal("ids-file:" + bad) == bad + ": \"three\" is neither a number nor a range like 3-7");
  CHECK(refusal("ids-file:" + twice) == twice + ": 1 appears twice");
  CHECK_THROWS_AS(Split::parse("ids-file:" + (folder / "missing")), Error);
}

TEST_CASE("rules are printed as they are written", "[split]") {
  for (const char* text : {"all", "class:9", "class:0-3,7", "30000-59999", "0-99,200-299", "ids:5,1,9-12", "first:1000",
                           "per-class:100", "random:0.1", "random:0.1@7", "0-29999 class:0-8 per-class:5"})
    CHECK(Split::parse(text).str() == text);
  CHECK(Split::parse("  class:1-1   random:1e-1 ").str() == "class:1 random:0.1");
}

TEST_CASE("what cannot be chosen is refused with one sentence", "[split]") {
  CHECK(refusal("class:4") == "class:4: the data set small has 4 classes, 0-3; there is no class 4");
  CHECK(refusal("class:1,3-5") == "class:1,3-5: the data set small has 4 classes, 0-3; there is no class 5");
  CHECK(refusal("10-20") == "10-20: the data set small has the ids 0-19, not 20");
  CHECK(refusal("first:21") == "first:21: there are only 20 samples to choose from");
  CHECK(refusal("0-9 first:11") == "first:11: there are only 10 samples to choose from");
  CHECK(refusal("per-class:6") == "per-class:6: there are only 5 samples of class 0 to choose from");
  CHECK(refusal("0-2 per-class:2") == "per-class:2: there are only 1 samples of class 0 to choose from");
  CHECK(refusal("ids:3,20") == "ids:3,20: there is no sample with the id 20 among the 20 of the data set small");
  CHECK(refusal("ids:0-9223372036854775807") ==
        "ids:0-9223372036854775807: there is no sample with the id 20 among the 20 of the data set small");
  CHECK(refusal("ids:1,5,1") == "ids:1,5,1: 1 appears twice");
  CHECK(refusal("ids:1-5,3") == "ids:1-5,3: 3 appears twice");
  CHECK(refusal("class:2,2") == "class:2,2: 2 appears twice");
}

TEST_CASE("what is not a rule is refused with one sentence", "[split]") {
  const std::string known =
      "; known are all, class:LIST, FIRST-LAST, ids:LIST, ids-file:PATH, first:N, per-class:N and random:FRACTION";
  CHECK(refusal("klass:9") == "unknown rule \"klass:9\"" + known);
  CHECK(refusal("-5") == "unknown rule \"-5\"" + known);
  CHECK(refusal("class:0 :") == "unknown rule \":\"" + known);
  CHECK(refusal("") == "a rule that chooses samples was expected, e.g. all, class:9 or random:0.1");
  CHECK(refusal("1000") ==
        "the rule \"1000\" is not clear: ids:1000 is the sample with this id, first:1000 are this many samples");
  CHECK(refusal("9-3") == "9-3: the range 9-3 ends before it begins");
  CHECK(refusal("class") == "class: numbers or ranges like 3-7 were expected after the colon");
  CHECK(refusal("class:x") == "class:x: \"x\" is neither a number nor a range like 3-7");
  CHECK(refusal("ids:3--4") == "ids:3--4: \"3--4\" is neither a number nor a range like 3-7");
  CHECK(refusal("ids:99999999999999999999") ==
        "ids:99999999999999999999: \"99999999999999999999\" is neither a number nor a range like 3-7");
  CHECK(refusal("first:-1") == "first:-1: a number of samples was expected after the colon");
  CHECK(refusal("per-class:") == "per-class:: a number of samples was expected after the colon");
  for (const char* bad : {"random:", "random:1.5", "random:-0.1", "random:nan", "random:x"})
    CHECK(refusal(bad) == std::string(bad) + ": a fraction between 0 and 1 was expected");
  CHECK(refusal("random:0.1@-1") == "random:0.1@-1: a seed (a number from 0 on) was expected after the @");
}

TEST_CASE("rules about classes need labels", "[split]") {
  const Dataset data("x", Tensor::zeros({3, 1, 1, 1}), {}, 2);
  CHECK_THROWS_WITH(Split::parse("class:1").positions(data), "the data set x has no labels");
  CHECK_THROWS_WITH(Split::parse("per-class:1").positions(data), "the data set x has no labels");
}

TEST_CASE("forget and retain are disjoint, complete and in order", "[split]") {
  const Dataset data = Split::parse("30-99 random:0.9@5").select(small_data(100, 4));
  for (const char* rule : {"random:0.1", "random:0.5", "class:2", "random:0", "all"})
    for (uint64_t seed = 0; seed < 20; seed++) {
      const ForgetRetain cut = split_forget_retain(data, Split::parse(rule), seed);
      CHECK(cut.forget.size() + cut.retain.size() == data.size());
      CHECK(std::is_sorted(cut.forget_positions.begin(), cut.forget_positions.end()));
      CHECK(std::is_sorted(cut.retain_positions.begin(), cut.retain_positions.end()));
      CHECK(cut.forget.ids() == data.subset(cut.forget_positions).ids());
      std::set<int64_t> ids(cut.forget.ids().begin(), cut.forget.ids().end());
      ids.insert(cut.retain.ids().begin(), cut.retain.ids().end());
      CHECK(ids == std::set<int64_t>(data.ids().begin(), data.ids().end()));
      CHECK(cut.retain.sha256() == data.subset_by_id(cut.retain.ids()).sha256());
    }
}

TEST_CASE("the splits of Fashion-MNIST", "[split][fashion-mnist]") {
  const Dataset train = load_fashion_mnist("", Part::train);
  const Dataset open = Split::parse("0-29999 class:0-8").select(train);
  CHECK(open.class_counts()[9] == 0);
  const Dataset rest = Split::parse("30000-59999").select(train);
  CHECK(open.size() + Split::parse("0-29999 class:9").select(train).size() == 30000);
  const Dataset own = Split::parse("per-class:100").select(rest);
  CHECK(own.class_counts() == Ids(10, 100));
  CHECK(own.ids().front() == 30000);
  CHECK(own.sha256() == Split::parse("30000-59999 per-class:100").select(train).sha256());
  CHECK(split_forget_retain(own, Split::parse("class:9")).forget.size() == 100);
  CHECK(split_forget_retain(own, Split::parse("random:0.1"), 3).retain.size() == 900);
  CHECK_THROWS_WITH(Split::parse("per-class:4000").positions(rest),
                    Catch::Matchers::Contains("samples of class 0 to choose from"));
}
