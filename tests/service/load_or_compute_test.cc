// Chunks that are sooner computed than loaded: what a request, the statistics and the metrics say.
#include <boost/json.hpp>

#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

namespace json = boost::json;

const std::vector<std::string> kTexts = {"the cat sat on the mat", "a dog ran by the sea",
                                         "birds sing at dawn"};

class LoadOrComputeTest : public PipelineTest {
 protected:
  // Stores the chunks, then makes the policy believe in a slow disk and a fast engine.
  void StoreAndTeach() {
    Ask(Question(kTexts, CacheMode::kFused, "concat"));
    Restart();
    const EngineStats stats = runtime_->engine().stats();
    LoadPolicy& policy = runtime_->cache().load_policy();
    for (uint64_t i = 1; i <= 8; ++i) {
      policy.RecordDisk(1000, 10);
      policy.RecordPool(1000, 10);
      policy.SamplePrefill(stats.prefill_rows + i * 1000000,
                           stats.prefill_seconds + static_cast<double>(i));
    }
  }
  json::object Loading() {
    return json::parse(Call(*service_, "GET", "/v1/stats").body).at("loading").as_object();
  }
};

TEST_F(LoadOrComputeTest, SlowChunksAreComputedInThePrompt) {
  StoreAndTeach();
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "concat"));
  EXPECT_EQ(StatusesOf(report), Statuses(3, "computed_sooner"));
  EXPECT_EQ(report.misses, 3);
  int64_t tokens = 0;
  for (const DocumentReport& document : report.documents) tokens += document.tokens;
  EXPECT_GT(report.account.computed, tokens) << "chunks and question";
  EXPECT_EQ(report.account.fused, 0);
  EXPECT_GT(report.account.prefix, 0) << "the anchor is loaded all the same";
  EXPECT_EQ(runtime_->cache().counters().slower, 3u);
  EXPECT_EQ(runtime_->cache().counters().inserted, 0u) << "it is stored already";
  EXPECT_EQ(Loading().at("computed_sooner").to_number<int>(), 3);
  EXPECT_NE(Call(*service_, "GET", "/metrics")
                .body.find("kvasir_chunk_misses_total{reason=\"slower_than_computing\"} 3"),
            std::string::npos);
}

TEST_F(LoadOrComputeTest, NothingIsSaidToBeMissing) {
  StoreAndTeach();
  RagRequest request = Question(kTexts, CacheMode::kFused, "concat");
  request.cache.compute_missing = false;
  EXPECT_EQ(StatusesOf(Ask(request)), Statuses(3, "computed_sooner"));
}

TEST_F(LoadOrComputeTest, AlwaysLoadsIfConfiguredSo) {
  Stop();
  config_.cache_load = "always";
  Start();
  StoreAndTeach();
  EXPECT_EQ(StatusesOf(Ask(Question(kTexts, CacheMode::kFused, "concat"))),
            Statuses(3, "hit_disk"));
}

TEST_F(LoadOrComputeTest, RatesComeFromLoadsAndPrefills) {
  EXPECT_TRUE(Loading().at("pool_bytes_per_second").is_null());
  EXPECT_TRUE(Loading().at("prefill_tokens_per_second").is_null());
  for (int i = 0; i < 8; ++i) {
    runtime_->DropUpperTiers(/*memory_too=*/true);
    Ask(Question(kTexts, CacheMode::kFused, "concat"));
  }
  EXPECT_GT(Loading().at("disk_bytes_per_second").to_number<double>(), 0);
  EXPECT_GT(Loading().at("pool_bytes_per_second").to_number<double>(), 0);
  EXPECT_GT(Loading().at("prefill_tokens_per_second").to_number<double>(), 0);
}

}  // namespace
}  // namespace kvasir
