// The add-on `shift` on a tiny random model: which rows move, by how much, and what it costs.
#include "service/kv_shift.h"

#include <algorithm>
#include <cmath>

#include "service/certifier.h"
#include "service/engine_call.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

const std::vector<std::string> kTexts = {"the cat sat on the mat and looked at the sea",
                                         "a dog ran by the sea until the evening came"};

class KvShiftTest : public PipelineTest {
 protected:
  struct Prepared {
    PromptPlan plan;
    PromptAccount account;
  };
  Prepared Prepare(const std::string& policy) {
    auto prompt = service_->rag.Prepare(Question(kTexts, CacheMode::kFused, policy));
    EXPECT_TRUE(prompt.ok()) << policy << ": " << prompt.status().ToString();
    if (!prompt.ok()) return {};
    return {prompt->plan, prompt->report.account};
  }
  // Layer 1 of a segment: keys before RoPE, values.
  void Read(const KvBlocks& blocks, std::vector<float>* k, std::vector<float>* v) {
    const ModelConfig& config = runtime_->model().config;
    ASSERT_TRUE(runtime_->engine().ReadBlocks(blocks, 1, k, v).ok());
    const RopeTable& rope = config.ropes[static_cast<size_t>(config.layer_rope[1])];
    const auto dim = static_cast<size_t>(config.head_dim);
    width_ = dim * static_cast<size_t>(config.kv_heads);
    for (size_t at = 0; at < k->size(); at += dim) {
      rope.Rotate(-static_cast<int64_t>(at / width_), k->data() + at);
    }
  }
  std::vector<float> LogitsOf(const PromptPlan& plan) {
    return *Certifier::FirstLogits(
        plan, [this](Request request) { return RunToEnd(runtime_->engine(), std::move(request)); });
  }

  size_t width_ = 0;
};

TEST_F(KvShiftTest, OtherRowsMoveByTheMeanChange) {
  Prepare("concat");
  const PromptPlan stored = Prepare("concat").plan, linked = Prepare("link(4)").plan;
  const Prepared shifted = Prepare("link(4)+shift");
  std::vector<std::shared_ptr<const KvBlocks>> computed;
  Request pass;
  pass.prompt = linked;
  pass.max_tokens = 0;
  pass.on_segments = [&](auto segments) { computed = std::move(segments); };
  ASSERT_TRUE(RunToEnd(runtime_->engine(), std::move(pass)).ok());

  const std::vector<size_t> chunks = {1, 2};  // behind the anchor
  std::vector<float> old_k[2], old_v[2], new_k[2], new_v[2], k, v;
  for (size_t c = 0; c < 2; ++c) {
    Read(*stored.segments[chunks[c]].blocks, &old_k[c], &old_v[c]);
    Read(*computed[chunks[c]], &new_k[c], &new_v[c]);
  }
  for (size_t c = 0; c < 2; ++c) {
    const SegmentPlan& segment = shifted.plan.segments[chunks[c]];
    EXPECT_EQ(segment.repaired, 4);
    EXPECT_TRUE(segment.recompute.empty());
    Read(*segment.blocks, &k, &v);
    ASSERT_EQ(k.size(), old_k[c].size());
    for (size_t i = 0; i < k.size(); ++i) {
      const size_t row = i / width_, column = i % width_;
      float dk = 0, dv = 0;
      for (size_t d = 0; d < 2; ++d) {
        for (size_t r = 0; r < 4; ++r) {
          dk += (new_k[d][r * width_ + column] - old_k[d][r * width_ + column]) / 8;
          dv += (new_v[d][r * width_ + column] - old_v[d][r * width_ + column]) / 8;
        }
      }
      ASSERT_NEAR(k[i], row < 4 ? new_k[c][i] : old_k[c][i] + dk, 1e-5) << c << " at " << i;
      ASSERT_NEAR(v[i], row < 4 ? new_v[c][i] : old_v[c][i] + dv, 1e-5) << c << " at " << i;
    }
  }
}

TEST_F(KvShiftTest, ChargesTheQuestionOnceMore) {
  Prepare("concat");
  const Prepared linked = Prepare("link(4)"), shifted = Prepare("link(4)+shift");
  EXPECT_EQ(shifted.account.recomputed, linked.account.recomputed);
  EXPECT_EQ(shifted.account.fused, linked.account.fused);
  EXPECT_EQ(shifted.account.computed, linked.account.computed);
  EXPECT_EQ(shifted.account.looked, static_cast<double>(linked.account.computed));
  EXPECT_EQ(shifted.plan.rows(), linked.account.computed);
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "query(0.2)+shift"));
  EXPECT_EQ(report.policy, "query(0.2)+shift");
}

TEST_F(KvShiftTest, WithNothingLeftToMoveItIsThePolicyAlone) {
  Prepare("concat");
  const std::vector<float> all = LogitsOf(Prepare("link(1024)").plan);
  const std::vector<float> shifted = LogitsOf(Prepare("link(1024)+shift").plan);
  for (size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(shifted[i], all[i], 1e-3) << i;
  EXPECT_NE(LogitsOf(Prepare("link(4)+shift").plan), LogitsOf(Prepare("link(4)").plan));
}

// Shared chunk KV stays as it is.
TEST_F(KvShiftTest, OtherRequestsSeeTheStoredKv) {
  Prepare("concat");
  const std::vector<float> before = LogitsOf(Prepare("concat").plan);
  Ask(Question(kTexts, CacheMode::kFused, "query(0.3)+shift"));
  EXPECT_EQ(LogitsOf(Prepare("concat").plan), before);
}

}  // namespace
}  // namespace kvasir
