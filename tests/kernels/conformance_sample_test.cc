// Sample against TokenDrawer: the same token, unless the rounding of weights explains another.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "kernels/core/random.h"
#include "tests/kernels/chi_square.h"
#include "tests/kernels/conformance_fixture.h"

namespace kvasir {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<int32_t> SampleRows(Backend& backend, const Tensor& logits,
                                const std::vector<RowDraw>& draws) {
  std::vector<int32_t> tokens(draws.size(), -7);
  backend.Sample(logits.view(), draws, tokens);
  return tokens;
}

// A device computes a weight 2^y in fp32. y has three roundings (the difference, log2(e) / T, their
// product), 2^y two units in the last place, and what is less than 2^-40 of the heaviest may be
// lost.
double ErrorOf(double weight) {
  const double y = weight > 0 ? std::fabs(std::log2(weight)) : 0;
  return weight * (std::log(2.0) * 3 * y * kUnit + 4 * kUnit) + 0x1p-40;
}

struct Candidate {
  int32_t id;
  double weight;
};

// Whether `token` is drawn if every weight may be off by its error.
class Explanation {
 public:
  Explanation(std::span<const float> logits, const DrawParams& params) : params_(params) {
    const double max = logits[static_cast<size_t>(BestToken(logits))];
    for (size_t id = 0; id < logits.size(); ++id) {
      const double weight = std::exp((logits[id] - max) / double{params.temperature});
      candidates_.push_back({static_cast<int32_t>(id), weight});
      slack_ += ErrorOf(weight);
    }
    std::stable_sort(candidates_.begin(), candidates_.end(),
                     [](const Candidate& a, const Candidate& b) { return a.weight > b.weight; });
    if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates_.size()) {
      candidates_.resize(static_cast<size_t>(params.top_k));
    }
  }

  bool Allows(int32_t token) const {
    double total = 0, sum = 0;
    for (const Candidate& c : candidates_) total += c.weight;
    const double target = params_.top_p < 1 ? double{params_.top_p} * total : total;
    for (size_t n = 1; n <= candidates_.size(); ++n) {
      const double before = sum;
      sum += candidates_[n - 1].weight;
      const bool last = n == candidates_.size();
      const bool ends =
          params_.top_p < 1 ? before < target + slack_ && sum >= target - slack_ : last;
      if ((ends || last) && Picks(n, token)) return true;
      if (before > target + slack_) break;
    }
    return false;
  }

 private:
  // Whether `token` may be picked among the heaviest n.
  bool Picks(size_t n, int32_t token) const {
    for (const double sign : {-1.0, 1.0}) {  // which of those at min_p's edge stay
      std::vector<Candidate> kept;
      for (size_t i = 0; i < n; ++i) {
        const Candidate& c = candidates_[i];
        if (c.weight >= params_.min_p + sign * ErrorOf(c.weight) || i == 0) kept.push_back(c);
      }
      std::sort(kept.begin(), kept.end(),
                [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
      double total = 0, sum = 0;
      for (const Candidate& c : kept) total += c.weight;
      const double at = UniformAt(params_.seed, params_.position) * total;
      for (const Candidate& c : kept) {
        const bool here = sum - slack_ <= at && at <= sum + c.weight + slack_;
        if (c.id == token && here) return true;
        sum += c.weight;
      }
    }
    return false;
  }

  const DrawParams params_;
  std::vector<Candidate> candidates_;  // heaviest first, as top-k leaves them
  double slack_ = 0;
};

class ConformanceSample : public Conformance {
 protected:
  void SetUp() override { ASSERT_TRUE(backend_->CanSample(200000)); }
  // Compares every draw; counts those that only rounding explains.
  void Expect(Tensor& logits, const std::vector<RowDraw>& draws) {
    const auto tokens = SampleRows(*backend_, logits, draws);
    for (size_t i = 0; i < draws.size(); ++i) {
      const float* const row = logits.host.data() + draws[i].row * logits.view().row_stride;
      const std::span<const float> values(row, static_cast<size_t>(logits.view().cols));
      const DrawParams& p = draws[i].params;
      ++drawn_;
      const int32_t want = TokenDrawer().Draw(values, p);
      if (tokens[i] == want) continue;
      ++explained_;
      EXPECT_TRUE(p.temperature > 0 && Explanation(values, p).Allows(tokens[i]))
          << "V " << values.size() << " T " << p.temperature << " k " << p.top_k << " p " << p.top_p
          << " min_p " << p.min_p << " position " << p.position << ": " << tokens[i]
          << " instead of " << want;
    }
  }
  // Ids that come out over many positions of one row.
  std::map<int32_t, int> Counts(const std::vector<float>& logits, DrawParams params, int draws) {
    Tensor row(*backend_, 1, static_cast<int64_t>(logits.size()), logits);
    std::vector<RowDraw> rows;
    for (int i = 0; i < draws; ++i) {
      params.position = static_cast<uint64_t>(i);
      rows.push_back({0, params});
    }
    std::map<int32_t, int> counts;
    for (const int32_t token : SampleRows(*backend_, row, rows)) ++counts[token];
    return counts;
  }
  std::set<int32_t> Support(const std::vector<float>& logits, const DrawParams& params,
                            int draws = 100) {
    std::set<int32_t> ids;
    for (const auto& [id, count] : Counts(logits, params, draws)) ids.insert(id);
    return ids;
  }

  int drawn_ = 0, explained_ = 0;
};

TEST_P(ConformanceSample, RandomRowsOfManyWidths) {
  const auto pick = [&](const auto& values) { return values[random_() % std::size(values)]; };
  for (const int64_t vocab : {1, 2, 5, 127, 128, 129, 515, 3001, 9000}) {
    const int64_t rows = 4;
    Tensor logits(*backend_, rows, vocab, vocab % 2);  // aligned rows and others
    logits.host = Normal(logits.host.size(), random_, vocab % 3 == 0 ? 8.0f : 2.0f);
    logits.Push();
    std::vector<RowDraw> draws;
    for (int i = 0; i < 16; ++i) {
      DrawParams p;
      p.temperature = pick(std::to_array({0.0f, 0.3f, 0.7f, 1.0f, 2.0f}));
      p.top_k = pick(std::to_array({0, 0, 1, 2, 40, static_cast<int32_t>(vocab), 100000}));
      p.top_p = pick(std::to_array({1.0f, 1.0f, 0.999f, 0.9f, 0.5f, 0.01f}));
      p.min_p = pick(std::to_array({0.0f, 0.0f, 0.05f, 0.5f}));
      p.seed = random_();
      p.position = random_();
      draws.push_back({static_cast<int32_t>(random_() % static_cast<uint64_t>(rows)), p});
    }
    Expect(logits, draws);
  }
  EXPECT_LE(explained_, drawn_ / 50);
}

TEST_P(ConformanceSample, AVocabularyOf128k) {
  const int64_t vocab = 128256;
  Tensor logits(*backend_, 1, vocab, Normal(static_cast<size_t>(vocab), random_, 3.0f));
  Expect(logits, {{0, {}},
                  {0, {.temperature = 1, .seed = 1, .position = 9}},
                  {0, {.temperature = 0.8f, .top_k = 50, .top_p = 0.9f, .seed = 2}},
                  {0, {.temperature = 1, .top_p = 0.95f, .seed = 3, .position = 4}}});
}

// Many equal logits, both zeros among them: cuts lie amid ties and keep the lowest ids.
TEST_P(ConformanceSample, Ties) {
  const int64_t vocab = 700;
  Tensor logits(*backend_, 1, vocab);
  for (float& logit : logits.host) logit = 0.5f * static_cast<float>(random_() % 4) - 1.0f;
  for (size_t i = 0; i < logits.host.size(); i += 3) {
    if (logits.host[i] == 0.0f) logits.host[i] = -0.0f;
  }
  logits.Push();
  std::vector<RowDraw> draws = {{0, {}}};
  for (int i = 0; i < 40; ++i) {
    DrawParams p = {.temperature = 1, .seed = random_()};
    if (i % 2 == 0) p.top_k = 1 + static_cast<int32_t>(random_() % 690);
    if (i % 3 != 0) p.top_p = 0.02f + 0.024f * static_cast<float>(i);
    draws.push_back({0, p});
  }
  Expect(logits, draws);
}

TEST_P(ConformanceSample, TruncationsByHand) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.2f), std::log(0.4f), std::log(0.1f),
                                     std::log(0.3f)};
  using Ids = std::set<int32_t>;
  EXPECT_EQ(Support(logits, {.temperature = 1}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_k = 1}), (Ids{1}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_p = 1e-9f}), (Ids{1}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_p = 0.39f}), (Ids{1}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_p = 0.41f}), (Ids{1, 3}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_p = 0.75f}), (Ids{0, 1, 3}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_p = 0.91f}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(Support(logits, {.temperature = 1, .min_p = 0.45f}), (Ids{0, 1, 3}));
  // top-p counts in what top-k left: 0.4 of 0.7 is 0.57.
  EXPECT_EQ(Support(logits, {.temperature = 1, .top_k = 2, .top_p = 0.5f}), (Ids{1}));
  EXPECT_EQ(Support(logits, {.temperature = 0.25f, .min_p = 0.4f}), (Ids{1}));
  EXPECT_EQ(Support({1, 2, 1.999f}, {.temperature = 1e-30f}), (Ids{1}));
  EXPECT_EQ(Support({1, 2, 1.999f}, {.temperature = 1e-42f}), (Ids{1}));
  EXPECT_EQ(Support({5}, {.temperature = 2, .top_p = 0.5f}), (Ids{0}));
}

// An exact boundary: of 1,000 equal tokens the first half, and the first seven.
TEST_P(ConformanceSample, CutsAmidEqualTokens) {
  const std::vector<float> equal(1000, 0.25f);
  const auto half = Support(equal, {.temperature = 1, .top_p = 0.5f}, 120);
  EXPECT_LT(*half.rbegin(), 500);
  EXPECT_GT(*half.rbegin(), 400);
  EXPECT_EQ(Support(equal, {.temperature = 1, .top_k = 7}, 80),
            (std::set<int32_t>{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Support(equal, {.temperature = 1, .top_k = 4, .top_p = 0.51f}, 60),
            (std::set<int32_t>{0, 1, 2}));
  EXPECT_EQ(Support(equal, {}, 1), (std::set<int32_t>{0}));
}

TEST_P(ConformanceSample, InfinitiesAndNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> values(6 * 200, -1.0f);
  const auto row = [&](size_t r) { return values.begin() + static_cast<std::ptrdiff_t>(200 * r); };
  row(0)[199] = nan;
  row(1)[64] = kInfinity;
  std::fill(row(2), row(3), -kInfinity);
  std::fill(row(3), row(4), -kInfinity);
  row(3)[131] = -3e38f;
  row(4)[17] = -kInfinity;
  row(5)[0] = -nan;
  Tensor logits(*backend_, 6, 200, values);
  for (const float temperature : {0.0f, 1.0f}) {
    std::vector<RowDraw> draws;
    for (int32_t r = 0; r < 6; ++r) draws.push_back({r, {.temperature = temperature, .top_k = 20}});
    const auto tokens = SampleRows(*backend_, logits, draws);
    EXPECT_EQ(tokens[0], -1);
    EXPECT_EQ(tokens[1], -1);
    EXPECT_EQ(tokens[2], -1);
    EXPECT_EQ(tokens[3], 131);
    EXPECT_GE(tokens[4], 0);
    EXPECT_NE(tokens[4], 17);
    EXPECT_EQ(tokens[5], -1);
  }
}

// 2,000 draws over 12 outcomes: chi-square with 11 degrees of freedom exceeds 37.4 with probability
// 1e-4 under the right distribution; the draws are fixed by the seed.
TEST_P(ConformanceSample, DrawsFollowTheDistribution) {
  const auto logits = Normal(12, random_, 1.5f);
  constexpr int kDraws = 2000;
  const auto counts = Counts(logits, {.temperature = 0.8f, .seed = 99}, kDraws);
  EXPECT_LT(ChiSquare(counts, logits, 0.8, kDraws), 37.4);
}

TEST_P(ConformanceSample, ADrawDependsOnItsRowAlone) {
  const int64_t vocab = 1003, rows = 6;
  const auto values = Normal(static_cast<size_t>(vocab * rows), random_, 2.0f);
  Tensor together(*backend_, rows, vocab, values);
  std::vector<RowDraw> draws;
  for (int32_t r = 0; r < rows; ++r) {
    draws.push_back({r,
                     {.temperature = r == 2 ? 0.0f : 1.0f,
                      .top_k = r % 2 == 0 ? 30 : 0,
                      .top_p = r < 3 ? 0.9f : 1.0f,
                      .seed = uint64_t(r),
                      .position = uint64_t(100 * r)}});
  }
  const auto tokens = SampleRows(*backend_, together, draws);
  std::vector<RowDraw> backwards(draws.rbegin(), draws.rend());
  auto turned = SampleRows(*backend_, together, backwards);
  std::reverse(turned.begin(), turned.end());
  EXPECT_EQ(turned, tokens);
  for (int32_t r = 0; r < rows; ++r) {
    const auto begin = values.begin() + r * vocab;
    Tensor alone(*backend_, 1, vocab, std::vector<float>(begin, begin + vocab));
    RowDraw draw = draws[static_cast<size_t>(r)];
    draw.row = 0;
    EXPECT_EQ(SampleRows(*backend_, alone, {draw})[0], tokens[static_cast<size_t>(r)]) << r;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceSample, testing::ValuesIn(PresentBackends()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace kvasir
