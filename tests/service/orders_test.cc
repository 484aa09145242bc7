// 16 requests over the same 8 chunks in 16 orders, through the pipeline: every chunk's KV lies in
// the pool once, and every answer is, bit for bit, that of the request alone with KV of its own.
#include <algorithm>
#include <cstring>
#include <future>
#include <mutex>
#include <random>

#include "engine/engine.h"
#include "service/kv_residency.h"
#include "service/paths.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

constexpr int kRequests = 16, kChunks = 8;
constexpr int32_t kAnswerTokens = 6;

// What a request said: logits of the last prompt row and of every step.
using Logits = std::vector<std::vector<float>>;

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string ModelPath() { return ModelsFolder() + "/" + kDefaultModelFile; }

class OrdersTest : public PipelineTest {
 protected:
  void UseRealModel() {
    Stop();
    auto model = LoadGgufModel(ModelPath(), *parts_.backend);
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    parts_.model = *model;
    config_.engine_kv_dtype = "bf16";
    config_.engine_pool_mib = 96;
    config_.cache_memory_mib = 64;
    Start();
  }

  static std::string Passage(int index) {
    std::string text;
    for (int i = 0; i < 12 + index; ++i) {
      text += "item " + std::to_string(index * 31 + i * 7) + (i % 4 == 3 ? ".\n" : " ");
    }
    return text;
  }

  // Odd requests repair the chunks' first rows in private copies of their blocks.
  static RagRequest OrderedRequest(int index) {
    std::vector<std::string> texts;
    for (int chunk = 0; chunk < kChunks; ++chunk) texts.push_back(Passage(chunk));
    std::shuffle(texts.begin(), texts.end(), std::mt19937(static_cast<unsigned>(index)));
    RagRequest request = Question(texts, CacheMode::kFused, index % 2 == 0 ? "concat" : "link(4)");
    request.messages = {{"user", "Which is item " + std::to_string(index) + "?"}};
    return request;
  }

  PreparedPrompt Prepare(int index) {
    auto prompt = service_->rag.Prepare(OrderedRequest(index));
    EXPECT_TRUE(prompt.ok()) << prompt.status().ToString();
    return prompt.ok() ? *std::move(prompt) : PreparedPrompt{};
  }

  int64_t UsedBlocks() const {
    const EngineStats stats = runtime_->engine().stats();
    return stats.blocks_total - stats.blocks_free;
  }

  // Runs all of them at once. *peak: most blocks in use, *together: most requests running.
  std::vector<Logits> Run(const std::vector<PromptPlan>& plans, int64_t* peak, int* together) {
    std::vector<Logits> logits(plans.size());
    std::vector<std::promise<void>> ends(plans.size());
    std::promise<void> all_in;
    const std::shared_future<void> submitted = all_in.get_future().share();
    *peak = 0, *together = 0;
    for (size_t i = 0; i < plans.size(); ++i) {
      Request request;
      request.prompt = plans[i];
      request.max_tokens = kAnswerTokens;
      request.ignore_eos = true;
      // On the engine's thread, one after the other; the first waits until all are submitted.
      request.on_logits = [&, i, submitted](const std::vector<float>& values) {
        submitted.wait();
        logits[i].push_back(values);
        *peak = std::max(*peak, UsedBlocks());
        *together = std::max(*together, runtime_->engine().stats().running);
      };
      request.sink = [&, i](const TokenEvent& event) {
        if (event.finish == FinishReason::kNone) return;
        EXPECT_EQ(event.finish, FinishReason::kLength) << event.status.ToString();
        ends[i].set_value();
      };
      const auto id = runtime_->engine().Submit(std::move(request));
      EXPECT_TRUE(id.ok()) << id.status().ToString();
      if (!id.ok()) ends[i].set_value();
    }
    all_in.set_value();
    for (std::promise<void>& end : ends) end.get_future().wait();
    return logits;
  }

  // Blocks that a request writes itself: question and answer, whose last token is never fed back,
  // and copies of what it repairs.
  static int64_t OwnBlocks(const PromptPlan& plan) {
    int64_t blocks = BlocksFor(plan.segments.back().tokens() + kAnswerTokens - 1);
    for (const SegmentPlan& segment : plan.segments) {
      blocks += segment.recompute.empty() ? 0 : BlocksFor(segment.recompute.back() + 1);
    }
    return blocks;
  }

  void SixteenOrders() {
    Prepare(0);  // makes and stores the chunks
    Restart();
    const PreparedPrompt first = Prepare(0);
    const int64_t used_by_one = UsedBlocks();
    EXPECT_EQ(first.report.hits, kChunks);
    EXPECT_EQ(used_by_one, ResidencyOf({&first.plan, 1}).shared_blocks);

    std::vector<PromptPlan> plans;
    int64_t own_blocks = 0;
    for (int i = 0; i < kRequests; ++i) {
      const PreparedPrompt prompt = Prepare(i);
      EXPECT_EQ(prompt.report.hits, kChunks);
      EXPECT_EQ(prompt.report.account.computed, prompt.plan.segments.back().tokens());
      own_blocks += OwnBlocks(prompt.plan);
      plans.push_back(prompt.plan);
    }
    const KvResidency residency = ResidencyOf(plans);
    EXPECT_EQ(residency.handles, kChunks + 1) << "each chunk and the anchor once";
    EXPECT_EQ(residency.copied_blocks, kRequests * residency.shared_blocks);
    EXPECT_EQ(UsedBlocks(), used_by_one) << "chunk KV of 16 requests: 1.0 x that of one";

    int64_t peak = 0;
    int together = 0;
    const std::vector<Logits> shared = Run(plans, &peak, &together);
    EXPECT_EQ(together, kRequests);
    EXPECT_EQ(peak, used_by_one + own_blocks) << "all else is what each request writes itself";
    EXPECT_EQ(UsedBlocks(), used_by_one);

    // Each alone, its chunks loaded from disk into fresh blocks.
    plans.clear();
    for (int i = 0; i < kRequests; ++i) {
      runtime_->DropUpperTiers(/*memory_too=*/true);
      const PreparedPrompt prompt = Prepare(i);
      const std::vector<Logits> alone = Run({prompt.plan}, &peak, &together);
      ASSERT_EQ(alone[0].size(), static_cast<size_t>(kAnswerTokens));
      ASSERT_EQ(shared[static_cast<size_t>(i)].size(), alone[0].size());
      for (size_t step = 0; step < alone[0].size(); ++step) {
        EXPECT_TRUE(SameBits(shared[static_cast<size_t>(i)][step], alone[0][step]))
            << "request " << i << ", step " << step;
      }
    }
  }
};

TEST_F(OrdersTest, SixteenRequestsShareEightChunks) { SixteenOrders(); }

TEST_F(OrdersTest, SixteenRequestsShareEightChunksInFourBits) {
  Stop();
  config_.cache_codec = "int4";
  Start();
  SixteenOrders();
}

TEST_F(OrdersTest, SixteenRequestsShareEightChunksOfARealModel) {
  if (!std::filesystem::exists(ModelPath())) {
    GTEST_SKIP() << "skipped: model " << kDefaultModelFile << " missing";
  }
  UseRealModel();
  if (!HasFatalFailure()) SixteenOrders();
}

TEST(KvResidency, CountsDistinctAndCopiedBlocks) {
  const auto a = std::make_shared<const KvBlocks>(std::vector<int32_t>{1, 2}, 20, nullptr);
  const auto b = std::make_shared<const KvBlocks>(std::vector<int32_t>{3}, 10, nullptr);
  const SegmentPlan with_a{{}, a, ReuseKind::kFused, {}}, with_b{{}, b, ReuseKind::kFused, {}};
  const std::vector<PromptPlan> plans = {{{with_a, with_b, {}}}, {{with_b, with_a}}, {{with_b}}};
  const KvResidency residency = ResidencyOf(plans);
  EXPECT_EQ(residency.handles, 2);
  EXPECT_EQ(residency.shared_blocks, 3);
  EXPECT_EQ(residency.copied_blocks, 7);
  EXPECT_EQ(ResidencyOf({}).shared_blocks, 0);
}

}  // namespace
}  // namespace kvasir
