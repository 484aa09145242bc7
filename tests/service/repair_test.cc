// Policies that look before they choose, on a tiny random model: what is selected, what it costs,
// and that their ends are those of the gates: all rows are full prefill, no rows are concat.
#include "service/repair.h"

#include <cmath>
#include <numeric>

#include "cache/selector.h"
#include "service/engine_call.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

const std::vector<std::string> kTexts = {"the cat sat on the mat and looked at the sea",
                                         "a dog ran by the sea until the evening came",
                                         "birds sing at dawn over the long grey roofs of the town"};

class RepairTest : public PipelineTest {
 protected:
  PromptPlan PlanOf(const std::string& policy, PromptAccount* account = nullptr) {
    auto prompt = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, policy));
    EXPECT_TRUE(prompt.ok()) << policy << ": " << prompt.status().ToString();
    if (!prompt.ok()) return {};
    if (account != nullptr) *account = prompt->report.account;
    return prompt->plan;
  }
  std::vector<float> LogitsOf(const PromptPlan& plan) {
    std::vector<float> logits;
    Request request;
    request.prompt = plan;
    request.max_tokens = 1;
    request.ignore_eos = true;
    request.on_logits = [&logits](const std::vector<float>& values) { logits = values; };
    EXPECT_TRUE(RunToEnd(runtime_->engine(), std::move(request)).ok());
    return logits;
  }
  static float Difference(const std::vector<float>& a, const std::vector<float>& b) {
    EXPECT_EQ(a.size(), b.size());
    float worst = 0;
    for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::fabs(a[i] - b[i]));
    return worst;
  }
  static PromptPlan WithAnchor(PromptPlan plan) {
    std::vector<int32_t>& rows = plan.segments.front().recompute;
    rows.resize(static_cast<size_t>(plan.segments.front().reused()));
    std::iota(rows.begin(), rows.end(), 0);
    return plan;
  }
  static std::vector<std::vector<int32_t>> RowsOf(const PromptPlan& plan) {
    std::vector<std::vector<int32_t>> rows;
    for (const SegmentPlan& segment : plan.segments) rows.push_back(segment.recompute);
    return rows;
  }
};

// The gates of policies, on a tiny model of every architecture.
class PolicyGates : public RepairTest, public testing::WithParamInterface<Architecture> {
 protected:
  test::TinyModelOptions ModelOptions() const override {
    test::TinyModelOptions options;
    options.architecture = GetParam();
    return options;
  }
};

std::string NameOf(const testing::TestParamInfo<Architecture>& info) {
  constexpr const char* kNames[] = {"Llama", "Qwen2", "Qwen3", "Gemma3"};
  return kNames[static_cast<size_t>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(All, PolicyGates,
                         testing::Values(Architecture::kLlama, Architecture::kQwen2,
                                         Architecture::kQwen3, Architecture::kGemma3),
                         NameOf);

// G3, at its bound of 1e-3 (the pool is fp32). The anchor's rows go in too: its KV is stored in 16
// bits, which policies leave as it is.
TEST_P(PolicyGates, AllRowsAreFullPrefill) {
  const std::vector<float> exact = LogitsOf(FlatPlan(PlanOf("concat")));
  const float stale = Difference(LogitsOf(PlanOf("concat")), exact);
  EXPECT_GT(stale, 0.1f) << "the stored KV differs, or this shows nothing";
  for (const char* policy : {"query(1)", "query(1,draft=3)", "blend(1)", "link(1024)",
                             "link(4)+query(1)", "query(1,rounds=3)"}) {
    EXPECT_LT(Difference(LogitsOf(WithAnchor(PlanOf(policy))), exact), 1e-3f) << policy;
  }
}

// G5: without a row chosen a policy is concat, whose logits the engine's gates check.
TEST_P(PolicyGates, NoRowsAreConcat) {
  const std::vector<float> concat = LogitsOf(PlanOf("concat"));
  EXPECT_EQ(LogitsOf(PlanOf("query(0.001)")), concat);
  EXPECT_EQ(LogitsOf(PlanOf("blend(0.001)")), concat);
}

TEST_F(RepairTest, TheShareAskedForIsComputedAgain) {
  PlanOf("concat");
  for (const char* policy : {"query(0.2)", "query(0.2,rounds=2)", "blend(0.2)"}) {
    const PromptPlan plan = PlanOf(policy);
    EXPECT_NEAR(static_cast<double>(AccountOf(plan).recomputed),
                0.2 * static_cast<double>(FusedRows(plan)), 1.01)
        << policy;
  }
}

TEST_F(RepairTest, ParallelChunksShareTheirPositionsAndCostNoMoreThanConcat) {
  PromptAccount account, concat;
  PlanOf("concat");
  const PromptPlan plan = PlanOf("parallel(0.9,0.9)", &account);
  PlanOf("concat", &concat);
  EXPECT_EQ(account.fused, concat.fused);
  EXPECT_EQ(account.computed, concat.computed);
  EXPECT_EQ(account.recomputed, 0);
  EXPECT_LT(PositionsOf(plan), account.requested);
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "parallel(0.9,0.9)"));
  EXPECT_EQ(report.policy, "parallel(0.9,0.9)");
  EXPECT_GT(Difference(LogitsOf(plan), LogitsOf(PlanOf("concat"))), 0.0f);
}

TEST_F(RepairTest, UnionsHoldTheRowsOfEveryTerm) {
  PlanOf("concat");
  const auto both = RowsOf(PlanOf("link(3)+query(0.2)"));
  for (size_t s = 1; s + 1 < both.size(); ++s) {
    ASSERT_GE(both[s].size(), 3u);
    EXPECT_EQ((std::vector<int32_t>(both[s].begin(), both[s].begin() + 3)),
              std::vector<int32_t>({0, 1, 2}));
  }
}

TEST_F(RepairTest, LooksAreCharged) {
  PlanOf("concat");
  PromptAccount account;
  const PromptPlan plan = PlanOf("query(0.2,rounds=2,draft=3)", &account);
  const auto tail = static_cast<double>(plan.segments.back().tokens());
  // Two looks of the question and three draft tokens; the second computes the first's rows too.
  const double first = std::round(0.1 * static_cast<double>(FusedRows(plan)));
  EXPECT_DOUBLE_EQ(account.looked, 2 * (tail + 3) + first);
  EXPECT_GT(account.ChargedFraction(), AccountOf(plan).ChargedFraction());
  // A probe is two layers of all rows.
  PlanOf("blend(0.2)", &account);
  const double layers = runtime_->model().config.layers;
  EXPECT_DOUBLE_EQ(account.looked, static_cast<double>(account.requested) * 2 / layers);
}

TEST_F(RepairTest, ChoosesTheSameRowsBesideOtherRequests) {
  PlanOf("concat");
  const auto alone = RowsOf(PlanOf("query(0.3)+blend(0.2)"));
  Request busy;
  busy.prompt = FlatPlan(PlanOf("concat"));
  busy.max_tokens = 60;
  busy.ignore_eos = true;
  busy.sink = [](const TokenEvent&) {};
  ASSERT_TRUE(runtime_->engine().Submit(busy).ok());
  EXPECT_EQ(RowsOf(PlanOf("query(0.3)+blend(0.2)")), alone);
}

TEST_F(RepairTest, AutoSaysWhoChoseThePolicy) {
  const CacheReport before = Ask(Question(kTexts, CacheMode::kAuto));
  EXPECT_EQ(before.chosen_by, "default");
  EXPECT_EQ(before.policy, DefaultFusedPolicy().Name());
  const ChoiceScope scope =
      runtime_->ChoiceScopeOf(kDefaultCollection, runtime_->encoding(), runtime_->codec());
  ASSERT_TRUE(runtime_->choices().Put(scope, {"link(4)", 0, 0, 0, 1, ""}).ok());
  Restart();
  const CacheReport after = Ask(Question(kTexts, CacheMode::kAuto));
  EXPECT_EQ(after.chosen_by, "eval");
  EXPECT_EQ(after.policy, "link(4)");
  EXPECT_EQ(Ask(Question(kTexts, CacheMode::kAuto, "concat")).chosen_by, "");
}

}  // namespace
}  // namespace kvasir
