#include "tests/engine/golden_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "tests/engine/sequence_runner.h"

namespace kvasir::test {
namespace {

constexpr int32_t kMaxTokens = 512;
constexpr int32_t kTextsADifference = 10;  // of so many one may part, at a near tie

int32_t BestOf(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

void GoldenTest::Load(const std::string& file, std::unique_ptr<Backend> backend) {
  const auto path = FindModelFile(file);
  if (!path) GTEST_SKIP() << "skipped: model " << file << " missing";
  backend_ = std::move(backend);
  auto model = LoadGgufModel(*path, *backend_);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  model_ = *model;
  prompts_ = ReadGoldenFile(file.substr(0, file.rfind('.')) + ".txt");
  ASSERT_EQ(prompts_.size(), 20U);
}

void GoldenTest::KeepShortest(size_t count, size_t tokens) {
  std::sort(prompts_.begin(), prompts_.end(), [](const GoldenPrompt& a, const GoldenPrompt& b) {
    return a.ids.size() < b.ids.size();
  });
  prompts_.resize(count);
  for (GoldenPrompt& prompt : prompts_) prompt.greedy.resize(tokens);
}

// Both sides compute in fp32 on the same dequantised weights (whatever their type: rounding of
// the weights is common to both), so only the order of sums differs. A sum of K products has an
// error of about u * sqrt(K) of its size (random walk, u = 2^-24), and about 7 operations a
// layer follow one another: u * sqrt(7 L K) of the largest logit, K the widest sum. Three times
// that, because the worst of 400 logits lies three deviations out.
double GoldenTest::Tolerance(const GoldenPrompt& prompt) const {
  const ModelConfig& c = model_->config;
  const double widest = std::max(c.ffn_width, c.heads * c.head_dim);
  const double rounding = std::ldexp(std::sqrt(7.0 * c.layers * widest), -24);
  return 3 * rounding * std::abs(prompt.top[0].second);
}

// Prefills prompt by prompt, then decodes all of them side by side.
std::vector<GoldenTest::Answer> GoldenTest::AnswerAll() {
  SequenceRunner runner(model_, *backend_, static_cast<int32_t>(prompts_.size()), kMaxTokens);
  std::vector<Answer> answers(prompts_.size());
  for (size_t i = 0; i < prompts_.size(); ++i) {
    answers[i].first = runner.Last(prompts_[i].ids, static_cast<int32_t>(i));
    answers[i].tokens = {BestOf(answers[i].first)};
  }
  for (size_t step = 1; step < prompts_[0].greedy.size(); ++step) {
    std::vector<RunSlice> slices;
    for (size_t i = 0; i < answers.size(); ++i) {
      slices.push_back({static_cast<int32_t>(i), {answers[i].tokens.back()}});
    }
    const auto rows = runner.Step(slices);
    for (size_t i = 0; i < rows.size(); ++i) answers[i].tokens.push_back(BestOf(rows[i]));
  }
  return answers;
}

void GoldenTest::CompareTop(const GoldenPrompt& prompt, const std::vector<float>& logits) {
  const double tolerance = Tolerance(prompt);
  for (const auto& [id, value] : prompt.top) {
    const double error = std::abs(logits[static_cast<size_t>(id)] - value);
    EXPECT_LE(error, tolerance) << prompt.name << ", token " << id;
    worst_ = std::max(worst_, error / tolerance);
  }
  // Nothing else may stand above the twentieth.
  const double least = prompt.top.back().second;
  const auto above = std::count_if(logits.begin(), logits.end(),
                                   [&](float logit) { return logit > least + 2 * tolerance; });
  EXPECT_LE(above, static_cast<int64_t>(prompt.top.size())) << prompt.name;
}

// True if the greedy texts are equal; else the first difference must be at a near tie.
bool GoldenTest::CompareGreedy(const GoldenPrompt& prompt, const std::vector<int32_t>& tokens) {
  for (size_t step = 0; step < tokens.size(); ++step) {
    if (tokens[step] == prompt.greedy[step].first) continue;
    EXPECT_LE(prompt.greedy[step].second, 2 * Tolerance(prompt))
        << prompt.name << " differs at step " << step << ", which is no near tie";
    return false;
  }
  return true;
}

void GoldenTest::Run() {
  const std::vector<Answer> answers = AnswerAll();
  int32_t different = 0;
  for (size_t i = 0; i < prompts_.size(); ++i) {
    CompareTop(prompts_[i], answers[i].first);
    if (!CompareGreedy(prompts_[i], answers[i].tokens)) ++different;
  }
  EXPECT_LE(different, static_cast<int32_t>(prompts_.size()) / kTextsADifference);
  RecordProperty("greedy_equal", static_cast<int>(prompts_.size()) - different);
  RecordProperty("worst_share_of_tolerance", std::to_string(worst_));
  std::printf("greedy texts equal: %d of %zu; worst logit error %.3f of the tolerance\n",
              static_cast<int>(prompts_.size()) - different, prompts_.size(), worst_);
}

}  // namespace kvasir::test
