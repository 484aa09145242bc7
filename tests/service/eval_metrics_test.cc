#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "service/eval/metrics.h"

namespace kvasir {
namespace {

// Softmax in double without tricks: safe for small logits alone.
std::vector<double> PlainSoftmax(const std::vector<float>& logits) {
  std::vector<double> p;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  for (const float logit : logits) p.push_back(std::exp(static_cast<double>(logit)) / sum);
  return p;
}

std::vector<float> RandomLogits(std::mt19937* random, size_t count) {
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(*random);
  return logits;
}

TEST(KlDivergence, ByHand) {
  // p = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2).
  const std::vector<float> p = {std::log(3.0F), 0}, q = {0, 0};
  const double expected = 0.75 * std::log(1.5) + 0.25 * std::log(0.5);
  // ln 3 is rounded to float: a relative 2^-24 of a logit of 1.1.
  EXPECT_NEAR(KlDivergence(p, q), expected, 1e-7);
  EXPECT_EQ(KlDivergence(p, p), 0);
}

TEST(KlDivergence, EqualsTheDefinitionAndIsShiftInvariant) {
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    const std::vector<float> p = RandomLogits(&random, 300), q = RandomLogits(&random, 300);
    const std::vector<double> softmax_p = PlainSoftmax(p), softmax_q = PlainSoftmax(q);
    double expected = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      expected += softmax_p[i] * std::log(softmax_p[i] / softmax_q[i]);
    }
    // 300 terms below 20 in size, each within a few 2^-53.
    EXPECT_NEAR(KlDivergence(p, q), expected, 1e-11);
    std::vector<float> moved = q;
    for (float& logit : moved) logit += 64;  // costs up to 2^-18 of each logit
    EXPECT_NEAR(KlDivergence(p, moved), expected, std::ldexp(1, -17));
  }
}

TEST(KlDivergence, LargeLogitsAndExcludedTokens) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  EXPECT_NEAR(KlDivergence(std::vector<float>{1000, 0}, std::vector<float>{0, 1000}), 1000, 1e-9);
  EXPECT_NEAR(KlDivergence(std::vector<float>{0, kNever}, std::vector<float>{0, 0}), std::log(2),
              1e-15);
  EXPECT_EQ(KlDivergence(std::vector<float>{0, kNever}, std::vector<float>{0, kNever}), 0);
  EXPECT_TRUE(std::isinf(KlDivergence(std::vector<float>{0, 0}, std::vector<float>{0, kNever})));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(KlDivergence(std::vector<float>{0, nan}, std::vector<float>{0, 0})));
}

TEST(Logits, ArgMaxAndLogProbability) {
  const std::vector<float> logits = {1, 3, 3, 2};
  EXPECT_EQ(ArgMax(logits), 1);
  EXPECT_TRUE(Top1Agrees(logits, std::vector<float>{0, 9, 0, 0}));
  EXPECT_FALSE(Top1Agrees(logits, std::vector<float>{0, 0, 9, 0}));
  const std::vector<float> even = {5, 5, 5, 5};
  EXPECT_NEAR(LogProbability(even, 2), -std::log(4), 1e-15);
}

TEST(FirstDivergence, ByHand) {
  const std::vector<int32_t> run = {4, 5, 6}, other = {4, 7, 6}, shorter = {4, 5}, none;
  EXPECT_EQ(FirstDivergence(run, run), -1);
  EXPECT_EQ(FirstDivergence(run, other), 1);
  EXPECT_EQ(FirstDivergence(run, shorter), 2);
  EXPECT_EQ(FirstDivergence(none, run), 0);
  EXPECT_EQ(FirstDivergence(none, none), -1);
}

TEST(RougeL, ByHand) {
  // Lin's example: 3 of 4 words in order, in texts of 4: F = 3/4.
  EXPECT_DOUBLE_EQ(RougeL("police kill the gunman", "police killed the gunman"), 0.75);
  EXPECT_DOUBLE_EQ(RougeL("the gunman kill police", "police killed the gunman"), 0.5);
  // Case and punctuation do not count: 2 x 2 / (2 + 3).
  EXPECT_DOUBLE_EQ(RougeL("The END.", "the very end"), 0.8);
  EXPECT_EQ(RougeL("", ""), 1);
  EXPECT_EQ(RougeL("...", "word"), 0);
  EXPECT_EQ(RougeL("R\u00f6ntgen", "r\u00f6ntgen"), 1);
}

// The row-wise recurrence against the definition by all subsequences.
TEST(RougeL, EqualsBruteForce) {
  std::mt19937 random(9);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> a(random() % 8), b(random() % 8);
    std::string text_a, text_b;
    for (auto& word : a)
      text_a += (word = std::string(1, static_cast<char>('a' + random() % 3))) + " ";
    for (auto& word : b)
      text_b += (word = std::string(1, static_cast<char>('a' + random() % 3))) + " ";
    size_t longest = 0;
    for (size_t chosen = 0; chosen < (size_t{1} << a.size()); ++chosen) {
      size_t at = 0, length = 0;
      bool fits = true;
      for (size_t i = 0; i < a.size() && fits; ++i) {
        if ((chosen >> i & 1) == 0) continue;
        while (at < b.size() && b[at] != a[i]) ++at;
        fits = at < b.size();
        ++at;
        ++length;
      }
      if (fits) longest = std::max(longest, length);
    }
    const double expected = a.empty() || b.empty() ? (a.size() == b.size() ? 1 : 0)
                                                   : 2.0 * static_cast<double>(longest) /
                                                         static_cast<double>(a.size() + b.size());
    EXPECT_DOUBLE_EQ(RougeL(text_a, text_b), expected) << text_a << "| " << text_b;
  }
}

TEST(SquadScores, Normalise) {
  EXPECT_EQ(NormaliseAnswer("  The Eiffel-Tower,  an  A.B.C. "), "eiffeltower abc");
  EXPECT_EQ(NormaliseAnswer("The a an"), "");
  EXPECT_EQ(NormaliseAnswer("theatre"), "theatre");
}

TEST(SquadScores, ByHand) {
  EXPECT_TRUE(ExactMatch("The WAL file.", "wal file"));
  EXPECT_FALSE(ExactMatch("wal files", "wal file"));
  // {big, red, dog} and {red, dog, red}: two in common, 2 x 2 / 6.
  EXPECT_DOUBLE_EQ(TokenF1("a big red dog", "red dog, red"), 2.0 * 2 / 6);
  // Repeated words count as often as both have them.
  EXPECT_DOUBLE_EQ(TokenF1("no no no", "no"), 0.5);
  EXPECT_EQ(TokenF1("the", "a"), 1);
  EXPECT_EQ(TokenF1("", "x"), 0);
}

TEST(SquadScores, BestOfSeveralGolds) {
  const std::vector<std::string> golds = {"1000 pages", "1000"};
  EXPECT_EQ(BestF1("1000", golds), 1);
  EXPECT_DOUBLE_EQ(BestF1("pages", golds), 2.0 / 3);
  EXPECT_TRUE(AnyExactMatch("1000.", golds));
  EXPECT_FALSE(AnyExactMatch("pages", golds));
}

TEST(Refusals, KnownPhrasesAlone) {
  EXPECT_TRUE(IsRefusal("I don\u2019t know."));
  EXPECT_TRUE(IsRefusal("The author is NOT MENTIONED in the passages."));
  EXPECT_TRUE(IsRefusal(" \n"));
  EXPECT_FALSE(IsRefusal("Wilhelm Conrad R\u00f6ntgen"));
  EXPECT_FALSE(IsRefusal("He did not win."));
  for (const std::string_view phrase : RefusalPhrases()) EXPECT_TRUE(IsRefusal(phrase)) << phrase;
}

}  // namespace
}  // namespace kvasir
