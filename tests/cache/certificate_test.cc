#include "cache/certificate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace kvasir {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

using Samples = std::vector<CalibrationSample>;

TEST(StopAt, TakesTheFirstRungThatStandsStill) {
  const std::vector<double> movement = {0.3, 0.1, 0.2};
  EXPECT_EQ(StopAt(movement, 0.3), 0u);
  EXPECT_EQ(StopAt(movement, 0.25), 1u);
  EXPECT_EQ(StopAt(movement, 0.1), 1u);
  EXPECT_EQ(StopAt(movement, 0.05), 3u);
  EXPECT_EQ(StopAt(movement, std::nullopt), 3u);
  EXPECT_EQ(StopAt(std::vector<double>{kNan, kInfinity}, 1e300), 2u);
}

TEST(CalibrateLambda, IsShortOfSamplesBelowOneOverAlpha) {
  // alpha 0.25: (lost + 1) / (n + 1) <= 0.25 needs n = 3 even without a loss.
  const CalibrationSample good{{0.1}, {0.0}, {}};
  EXPECT_EQ(CalibrateLambda({}, 0.05, 0.25), std::nullopt);
  EXPECT_EQ(CalibrateLambda(Samples(2, good), 0.05, 0.25), std::nullopt);
  EXPECT_EQ(CalibrateLambda(Samples(3, good), 0.05, 0.25), 0.1);
}

// Easy requests of one kind do not speak for those of another.
TEST(CalibrateLambda, HoldsForEveryKindThatHasEnoughSamples) {
  Samples samples;
  for (int i = 1; i <= 40; ++i) samples.push_back({{double(i)}, {0.0}, {}, 1});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), 40.0);
  // Seven of a harder kind: lost from movement 3 on; one of them may be.
  for (int i = 1; i <= 7; ++i) samples.push_back({{double(i)}, {i >= 3 ? 1.0 : 0.0}, {}, 2});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), 3.0);
  // Two of a third kind are too few to be asked.
  for (int i = 0; i < 2; ++i) samples.push_back({{0.5}, {1.0}, {}, 3});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), 3.0);
  // A kind whose every movement is lost allows no lambda of its own.
  samples.push_back({{0.5}, {1.0}, {}, 3});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), std::nullopt);
}

TEST(CalibrateLambda, MayLoseAsManyAsTheBoundAllows) {
  // One rung, movements 1..7, the two largest are lost. n = 7, alpha 0.25: lost + 1 <= 2.
  Samples samples;
  for (int i = 1; i <= 7; ++i) samples.push_back({{double(i)}, {i >= 6 ? 1.0 : 0.0}, {}});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), 6.0);   // loses 6 alone
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.125), 5.0);  // loses none
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.375), 7.0);  // never beyond what it has seen
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.124), std::nullopt);
  EXPECT_EQ(CalibrateLambda(samples, 2.0, 0.125), 7.0);  // no KL is above epsilon
}

TEST(CalibrateLambda, FindsNoLambdaWhereTheLeastMovementIsLost) {
  Samples samples(9, {{0.5}, {0.0}, {}});
  samples.push_back({{0.1}, {1.0}, {}});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.1), std::nullopt);  // may lose 0.1 * 11 - 1 = 0
}

// Lambda from 0.2 on stops this sample at rung 1 with KL 1, from 0.4 on at rung 0 with KL 0: by the
// running maximum it stays lost.
TEST(CalibrateLambda, KeepsALossThatALargerLambdaWouldUndo) {
  const Samples samples(3, {{0.4, 0.2}, {0.0, 1.0}, {}});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), std::nullopt);
  const auto curve = CalibrationCurve(samples, 0.05, 10);
  ASSERT_EQ(curve.size(), 2u);
  EXPECT_EQ(curve[0].lambda, 0.2);
  EXPECT_NEAR(curve[0].over, 1, 1e-12);
  EXPECT_EQ(curve[1].lambda, 0.4);
  EXPECT_EQ(curve[1].risk, 1);
  EXPECT_EQ(curve[1].over, 0);
  EXPECT_EQ(curve[1].bound, 1);
}

// A rung behind one with less movement is where no lambda stops.
TEST(CalibrateLambda, IgnoresRungsThatNoLambdaStopsAt) {
  const Samples samples(3, {{0.2, 0.4}, {0.0, 1.0}, {}});
  EXPECT_EQ(CalibrateLambda(samples, 0.05, 0.25), 0.4);
}

TEST(CalibrateLambda, TakesWhatIsNotANumberForTheWorst) {
  EXPECT_EQ(CalibrateLambda(Samples(3, {{0.2}, {kNan}, {}}), 0.05, 0.25), std::nullopt);
  EXPECT_EQ(CalibrateLambda(Samples(3, {{kInfinity}, {0.0}, {}}), 0.05, 0.25), std::nullopt);
  EXPECT_EQ(CalibrateLambda(Samples(3, {{kNan}, {0.0}, {}}), 0.05, 0.25), std::nullopt);
}

TEST(CalibrationCurve, CountsWhatALambdaDoes) {
  const Samples samples = {{{0.1, 0.1}, {0.0, 0.0}, {0.2, 0.5, 2.0}},
                           {{0.3, 0.2}, {1.0, 0.0}, {0.4, 0.5, 2.0}}};
  const auto curve = CalibrationCurve(samples, 0.05, 3);
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[0].exact, 0.5);
  EXPECT_DOUBLE_EQ(curve[0].charged, (0.2 + 2.0) / 2);
  EXPECT_EQ(curve[1].exact, 0);
  EXPECT_DOUBLE_EQ(curve[1].charged, (0.2 + 0.5) / 2);
  EXPECT_EQ(curve[1].risk, 0);
  EXPECT_EQ(curve[2].risk, 0.5);
  EXPECT_DOUBLE_EQ(curve[2].bound, 2.0 / 3);
  EXPECT_TRUE(CalibrationCurve({}, 0.05, 3).empty());
  EXPECT_EQ(CalibrationCurve(samples, 0.05, 1).size(), 1u);
  const auto with = CalibrationCurve(samples, 0.05, 1, 0.25);
  ASSERT_EQ(with.size(), 2u);
  EXPECT_EQ(with[1].lambda, 0.25);
  EXPECT_EQ(with[1].exact, 0);
}

TEST(PredictKl, IsTheQuantileOfTheNearest) {
  Samples samples;
  for (int i = 1; i <= 200; ++i) samples.push_back({{double(i)}, {i / 100.0}, {}});
  // 40 nearest to 200 are 161..200; the ceil(41 * 0.9) = 37th smallest KL is 1.97.
  EXPECT_DOUBLE_EQ(*PredictKl(samples, 0, 200, 0.1), 1.97);
  EXPECT_EQ(PredictKl(samples, 0, kNan, 0.1), PredictKl(samples, 0, kInfinity, 0.1));
  EXPECT_EQ(PredictKl(samples, 1, 0, 0.1), 0.0);  // exact
  EXPECT_EQ(PredictKl({}, 0, 1, 0.1), std::nullopt);
  // ceil(4 * 0.9) = 4 of 3: the largest.
  EXPECT_DOUBLE_EQ(*PredictKl(std::span(samples).first(3), 0, 1, 0.1), 0.03);
}

TEST(Fits, WantsOneEntryARung) {
  EXPECT_TRUE(Fits({{1, 2}, {1, 2}, {}}, 2));
  EXPECT_TRUE(Fits({{1, 2}, {1, 2}, {1, 2, 3}}, 2));
  EXPECT_FALSE(Fits({{1, 2}, {1, 2}, {1, 2}}, 2));
  EXPECT_FALSE(Fits({{1}, {1, 2}, {}}, 2));
  EXPECT_FALSE(Fits({{1, 2}, {1, 2}, {}}, 3));
}

// The largest lambda by trying all of them, with the running maximum written out.
std::optional<double> LambdaByTrying(const Samples& samples, double epsilon, double alpha) {
  std::vector<double> lambdas;
  for (const CalibrationSample& sample : samples) {
    lambdas.insert(lambdas.end(), sample.movement.begin(), sample.movement.end());
  }
  std::sort(lambdas.begin(), lambdas.end());
  std::vector<bool> lost(samples.size());
  std::optional<double> best;
  for (const double lambda : lambdas) {
    for (size_t i = 0; i < samples.size(); ++i) {
      const size_t stop = StopAt(samples[i].movement, lambda);
      if (stop < samples[i].kl.size() && samples[i].kl[stop] > epsilon) lost[i] = true;
    }
    const auto n = static_cast<double>(samples.size());
    const auto count = static_cast<double>(std::count(lost.begin(), lost.end(), true));
    if ((count + 1) / (n + 1) <= alpha) best = lambda;
  }
  return best;
}

// A request's rungs: KL falls by half or so a rung, movement says half of the truth.
CalibrationSample Draw(std::mt19937* random) {
  std::normal_distribution<double> noise;
  CalibrationSample sample;
  double log_kl = -3.5 + 1.5 * noise(*random);
  for (int rung = 0; rung < 3; ++rung) {
    sample.kl.push_back(std::exp(log_kl));
    sample.movement.push_back(std::exp(0.7 * log_kl - 1 + noise(*random)));
    log_kl -= 0.7 + 0.3 * noise(*random);
  }
  return sample;
}

Samples DrawMany(int count, std::mt19937* random) {
  Samples samples;
  for (int i = 0; i < count; ++i) samples.push_back(Draw(random));
  return samples;
}

TEST(CalibrateLambda, AgreesWithTryingEveryLambda) {
  std::mt19937 random(7);
  for (int repeat = 0; repeat < 300; ++repeat) {
    const Samples samples = DrawMany(1 + repeat % 40, &random);
    const double epsilon = 0.01 * (1 + repeat % 7), alpha = 0.013 + 0.05 * (repeat % 9);
    EXPECT_EQ(CalibrateLambda(samples, epsilon, alpha), LambdaByTrying(samples, epsilon, alpha));
  }
}

// Coverage: fresh samples and a fresh request each time. 4,000 draws of a probability of at most
// alpha have a standard deviation of at most sqrt(alpha (1 - alpha) / 4000); five of them are never
// reached by chance.
TEST(CalibrateLambda, KeepsItsPromiseOnExchangeableRequests) {
  constexpr int kDraws = 4000;
  for (const auto& [n, alpha] : {std::pair(40, 0.1), std::pair(100, 0.05), std::pair(25, 0.3)}) {
    std::mt19937 random(11);
    int lost = 0, stopped = 0;
    for (int draw = 0; draw < kDraws; ++draw) {
      const auto lambda = CalibrateLambda(DrawMany(n, &random), 0.05, alpha);
      const CalibrationSample request = Draw(&random);
      const size_t stop = StopAt(request.movement, lambda);
      stopped += stop < 3 ? 1 : 0;
      lost += stop < 3 && request.kl[stop] > 0.05 ? 1 : 0;
    }
    const double bound = alpha + 5 * std::sqrt(alpha * (1 - alpha) / kDraws);
    EXPECT_LE(lost, bound * kDraws) << "n " << n << ", alpha " << alpha;
    EXPECT_GT(stopped, kDraws / 4) << "it must not keep the promise by always going to exact";
  }
}

}  // namespace
}  // namespace kvasir
