#include "training/schedule.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "engine/error.h"

using namespace fastntk;
using Catch::Contains;

namespace {

double rate(const std::string& text, int64_t step, int64_t steps, double peak = 2) {
  return Schedule::parse(text).rate(peak, step, steps);
}

}  // namespace

TEST_CASE("schedules start, turn and end where they should") {
  for (const int64_t step : {0, 7, 99}) CHECK(rate("constant", step, 100) == 2);

  CHECK(rate("step:4:0.1", 0, 100) == 2);
  CHECK(rate("step:4:0.1", 24, 100) == 2);
  CHECK(rate("step:4:0.1", 25, 100) == Approx(0.2));
  CHECK(rate("step:4:0.1", 50, 100) == Approx(0.02));
  CHECK(rate("step:4:0.1", 99, 100) == Approx(0.002));

  CHECK(rate("cosine", 0, 100) == 2);
  CHECK(rate("cosine", 50, 100) == Approx(1));
  CHECK(rate("cosine", 100, 100) == Approx(0).margin(1e-15));
  CHECK(rate("cosine:0", 50, 100) == Approx(1));

  CHECK(rate("cosine:0.2", 0, 100) == Approx(2.0 / 20));
  CHECK(rate("cosine:0.2", 9, 100) == Approx(1));
  CHECK(rate("cosine:0.2", 19, 100) == Approx(2));
  CHECK(rate("cosine:0.2", 20, 100) == Approx(2));
  CHECK(rate("cosine:0.2", 60, 100) == Approx(1));
  CHECK(rate("cosine:0.2", 100, 100) == Approx(0).margin(1e-15));

  CHECK(rate("power:2:0", 0, 100) == 2);
  CHECK(rate("power:2:0", 50, 100) == Approx(0.5));
  CHECK(rate("power:0:0", 99, 100) == 2);
  CHECK(rate("power:1:0.5", 24, 100) == Approx(1));
  CHECK(rate("power:1:0.5", 75, 100) == Approx(1));
  CHECK(rate("power:1:0.5", 100, 100) == 0);

  CHECK(rate("one-cycle", 0, 100) == Approx(2.0 / 25));
  CHECK(rate("one-cycle", 15, 100) == Approx((2.0 / 25 + 2) / 2));
  CHECK(rate("one-cycle", 30, 100) == Approx(2));
  CHECK(rate("one-cycle", 100, 100) == Approx(2.0 / 250000));
}

TEST_CASE("a step schedule of as many parts as steps drops at every step") {
  for (const int64_t steps : {7, 10, 49, 100, 1000})
    for (int64_t step = 0; step < steps; step++) {
      CAPTURE(step, steps);
      const int64_t drops = std::lround(-std::log2(rate("step:" + std::to_string(steps) + ":0.5", step, steps, 1)));
      REQUIRE(drops == step);
    }
}

TEST_CASE("a warm-up rises to the peak, and nothing after it does") {
  for (const std::string text : {"cosine:0.1", "power:2:0.1", "one-cycle"}) {
    CAPTURE(text);
    double last = 0;
    for (int64_t step = 0; step < 200; step++) {
      const double now = rate(text, step, 200);
      CHECK(now > 0);
      CHECK(now <= 2);
      const double turn = text == "one-cycle" ? 60 : 20;
      if (static_cast<double>(step) < turn) CHECK(now >= last);
      if (static_cast<double>(step) > turn) CHECK(now <= last);
      last = now;
    }
  }
}

TEST_CASE("what is no schedule is refused") {
  const std::vector<std::string> wrong = {"",           "linear",   "constant:1", "step",          "step:3",
                                          "step:0:0.1", "step:3:0", "step:3:x",   "cosine:1",      "cosine:-0.1",
                                          "cosine:",    "power:2",  "power:-1:0", "power:2:0.1:3", "one-cycle:3",
                                          "cosine:nan", "Cosine"};
  for (const std::string& text : wrong) {
    CAPTURE(text);
    CHECK_THROWS_AS(Schedule::parse(text), UsageError);
  }
  CHECK_THROWS_WITH(Schedule::parse("linear"), Contains("step:PARTS:FACTOR") && Contains("got 'linear'"));
  CHECK_THROWS_WITH(Schedule::parse("step:3:x"), Contains("'x' is not a number"));
  CHECK(Schedule::parse("step:3:0.5").text == "step:3:0.5");
}
