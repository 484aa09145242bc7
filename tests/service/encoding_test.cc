// What stands before a chunk while it is encoded: keys, the KV itself, and what collections keep.
#include "service/encoding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <future>
#include <map>
#include <set>

#include "service/chunk_prefill.h"
#include "service/primer_text.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

TEST(IngestionCondition, NamesAreReadBack) {
  for (const char* name : {"bare", "anchor", "fixed", "own", "neighbour"}) {
    const auto condition = ParseIngestion(name);
    ASSERT_TRUE(condition.ok()) << name;
    EXPECT_EQ(IngestionName(*condition), name);
  }
  EXPECT_EQ(*ParseIngestion("primer"), IngestionCondition::kPrimerFixed);
  const auto bad = ParseIngestion("anchr");
  ASSERT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  for (const char* part : {"anchr", "bare", "anchor", "fixed", "own", "neighbour"}) {
    EXPECT_NE(bad.status().message().find(part), std::string::npos) << part;
  }
}

TEST(IngestionCondition, ContextOfAChunk) {
  const Ids anchor = {1, 2}, primer = {3};
  const auto of = [&](IngestionCondition condition) {
    return Encoding{condition, HasPrimer(condition) ? primer : Ids()}.Context(anchor);
  };
  EXPECT_TRUE(of(IngestionCondition::kBare).empty());
  EXPECT_EQ(of(IngestionCondition::kAnchor), (ChunkContext{anchor, {}}));
  EXPECT_EQ(of(IngestionCondition::kPrimerFixed), (ChunkContext{anchor, primer}));
  EXPECT_EQ(of(IngestionCondition::kPrimerOwn), (ChunkContext{anchor, primer}));
  EXPECT_EQ(of(IngestionCondition::kPrimerNeighbour), (ChunkContext{anchor, primer}));
}

class EncodingTest : public PipelineTest {
 protected:
  void StartWith(const std::string& condition, const std::string& codec = "int8") {
    Stop();
    config_.collection_ingestion = condition;
    config_.cache_codec = codec;
    Start();
  }
  Ids TokensOf(const std::string& text) {
    return *runtime_->chat_template().RenderDocument("", text);
  }
  Ids Anchor() { return *service_->ingest.AnchorOf("Answer."); }
  // KV of the last segment, all rows of all segments computed in one request.
  KvCapture Flat(const std::vector<Ids>& runs) {
    auto capture = std::make_shared<KvCapture>();
    std::promise<Status> end;
    Request request;
    for (const Ids& ids : runs) {
      if (ids.empty()) continue;
      SegmentPlan segment;
      segment.token_ids = ids;
      request.prompt.segments.push_back(std::move(segment));
    }
    request.max_tokens = 0;
    request.capture = capture;
    request.sink = [&end](const TokenEvent& event) {
      if (event.finish != FinishReason::kNone) end.set_value(event.status);
    };
    EXPECT_TRUE(runtime_->engine().Submit(std::move(request)).ok());
    const Status status = end.get_future().get();
    EXPECT_TRUE(status.ok()) << status.ToString();
    return std::move(*capture);
  }
  // The largest differences, over all layers, of a stored chunk's keys and values to a capture's,
  // each in units of the largest value of its kind in the layer.
  double WorstDifference(const KvBlocks& blocks, const KvCapture& flat) {
    const ModelConfig& model = runtime_->model().config;
    const auto width = static_cast<size_t>(flat.kv_heads) * static_cast<size_t>(flat.head_dim);
    double worst = 0;
    for (int32_t layer = 0; layer < flat.layers; ++layer) {
      const auto at = static_cast<size_t>(layer);
      std::vector<float> k, v;
      EXPECT_TRUE(runtime_->engine().ReadBlocks(blocks, layer, &k, &v).ok());
      std::vector<float> flat_k(
          flat.k.begin() + static_cast<ptrdiff_t>(at * flat.LayerStride()),
          flat.k.begin() + static_cast<ptrdiff_t>((at + 1) * flat.LayerStride()));
      const RopeTable& rope = model.ropes[static_cast<size_t>(model.layer_rope[at])];
      for (size_t i = 0; i < flat_k.size(); i += static_cast<size_t>(flat.head_dim)) {
        rope.Rotate(static_cast<int64_t>(i / width), &flat_k[i]);
      }
      worst = std::max({worst, Relative(k, flat_k.data()),
                        Relative(v, flat.v.data() + at * flat.LayerStride())});
    }
    return worst;
  }
  static double Relative(const std::vector<float>& found, const float* wanted) {
    double most = 0, difference = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      most = std::max(most, std::fabs(double{wanted[i]}));
      difference = std::max(difference, std::fabs(double{found[i]} - wanted[i]));
    }
    return difference / most;
  }
  ChunkLookup Make(const ChunkContext& context, const Ids& chunk, bool keep_primer = true) {
    ChunkPrefill prefill(*runtime_);
    const auto anchor = prefill.Anchor("kb", context.anchor, true);
    EXPECT_TRUE(anchor.ok());
    const Status made =
        prefill.Make("kb", *anchor, {{chunk, context, keep_primer}}, true, true, nullptr);
    EXPECT_TRUE(made.ok()) << made.ToString();
    return runtime_->cache().Lookup(runtime_->KeyOf("kb", context, chunk), chunk);
  }
};

TEST_F(EncodingTest, EveryContextIsAnotherKey) {
  const Ids chunk = {7, 8, 9}, anchor = {1, 2}, other = {1, 3};
  const std::vector<ChunkContext> contexts = {
      {},         {anchor, {}},    {other, {}},   {{}, {4}},    {anchor, {4}},   {anchor, {4, 5}},
      {{1}, {2}}, {{1, 2, 4}, {}}, {{1}, {2, 4}}, {other, {4}}, {anchor, {5, 4}}};
  std::set<std::string> keys;
  for (const ChunkContext& context : contexts) {
    EXPECT_TRUE(keys.insert(runtime_->KeyOf("kb", context, chunk).Bytes()).second);
    EXPECT_EQ(runtime_->KeyOf("kb", context, chunk), runtime_->KeyOf("kb", context, chunk));
  }
  EXPECT_TRUE(keys.insert(runtime_->PrimerKeyOf("kb", anchor, chunk).Bytes()).second)
      << "a primer's own KV is kept in 16 bits, a chunk's in 8";
}

// A chunk made behind blocks of anchor and primer has the KV of one flat prefill. All three runs
// are stored in 16 bits: u = 2^-11 of the largest value. Attention over keys and values that are
// off by u / 2 each gives a layer's output that is off by about 2 u (scores by u |q||k| / sqrt(D),
// of order u, values by u / 2), over 3 layers 6 u, and the chunk's own rounding adds u / 2: 8 u.
TEST_F(EncodingTest, KvEqualsAFlatPrefill) {
  StartWith("fixed", "fp16");
  constexpr double kTolerance = 8.0 / 2048;
  const Ids chunk = TokensOf("the cat sat on the mat and looked at the sea");
  const Ids primer = TokensOf("birds sing at dawn, dogs do not");
  const KvCapture flat = Flat({Anchor(), primer, chunk});
  for (const bool keep : {true, false}) {
    const ChunkLookup made = Make({Anchor(), primer}, chunk, keep);
    ASSERT_TRUE(made.hit());
    const double worst = WorstDifference(*made.blocks, flat);
    RecordProperty(keep ? "kept" : "on_the_way", std::to_string(worst));
    EXPECT_LE(worst, kTolerance) << keep;
    ASSERT_TRUE(runtime_->cache().Remove(runtime_->KeyOf("kb", {Anchor(), primer}, chunk)).ok());
  }
  const ChunkLookup anchored = Make({Anchor(), {}}, chunk);
  const ChunkLookup bare = Make({}, chunk);
  ASSERT_TRUE(anchored.hit() && bare.hit());
  EXPECT_LE(WorstDifference(*anchored.blocks, Flat({Anchor(), chunk})), kTolerance);
  EXPECT_LE(WorstDifference(*bare.blocks, Flat({chunk})), kTolerance);
  EXPECT_GT(WorstDifference(*anchored.blocks, flat), 2 * kTolerance) << "the primer shows";
  EXPECT_GT(WorstDifference(*bare.blocks, Flat({Anchor(), chunk})), 2 * kTolerance);
}

TEST_F(EncodingTest, ThePrimerIsComputedOnce) {
  std::vector<ChunkToMake> chunks;
  uint64_t rows = runtime_->encoding().primer.size() + Anchor().size();
  for (char c = 'a'; c < 'g'; ++c) {
    const Ids ids = TokensOf("chunk " + std::string(1, c));
    chunks.push_back({ids, runtime_->encoding().Context(Anchor()), true});
    rows += ids.size();
  }
  ChunkPrefill prefill(*runtime_);
  const auto anchor = prefill.Anchor("kb", Anchor(), true);
  ASSERT_TRUE(anchor.ok());
  ASSERT_TRUE(prefill.Make("kb", *anchor, chunks, true, true, nullptr).ok());
  EXPECT_EQ(runtime_->engine().stats().rows, rows);
  // Nor again after a restart.
  Restart();
  const Ids late = TokensOf("one more");
  Make(runtime_->encoding().Context(Anchor()), late);
  EXPECT_EQ(runtime_->engine().stats().rows, late.size());
}

// A primer that cannot be made beforehand is computed in front of the chunk.
TEST_F(EncodingTest, APrimerWithoutBlocksIsComputedOnTheWay) {
  const Ids chunk = TokensOf("cats nap"), primer = TokensOf("dogs run");
  Make({Anchor(), primer}, chunk, /*keep_primer=*/false);
  const ChunkKey key = runtime_->PrimerKeyOf("kb", Anchor(), primer);
  EXPECT_EQ(runtime_->cache().Contains(key, primer), std::nullopt);
}

TEST_F(EncodingTest, ALongPrimerIsCutAndEnded) {
  const auto cut = RenderPrimer(runtime_->chat_template(), std::string(5000, 'x'), 255);
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->size(), 255u);
  EXPECT_EQ(cut->back(), TokensOf("x").back()) << "the end of a passage";
  const auto whole = RenderPrimer(runtime_->chat_template(), "short", 255);
  EXPECT_EQ(*whole, TokensOf("short"));
  EXPECT_FALSE(RenderPrimer(runtime_->chat_template(), "\xFF", 255).ok());
}

// Each condition, end to end: what was ingested is found, hit, and hit again after a restart.
TEST_F(EncodingTest, IngestedChunksAreHitUnderEveryCondition) {
  for (const std::string condition : {"bare", "anchor", "fixed", "own", "neighbour"}) {
    StartWith(condition);
    const std::string file =
        WriteFile(condition + ".txt", "cats chase mice in attics, " + condition);
    const IngestReport report =
        service_->ingest.IngestFiles("kb-" + condition, {file}, false, nullptr);
    ASSERT_TRUE(report.failures.empty()) << report.failures[0].message;
    EXPECT_EQ(runtime_->documents().GetCollection("kb-" + condition)->ingestion, condition);
    RagRequest request = Question({}, CacheMode::kFused, "concat");
    request.collection = "kb-" + condition;
    EXPECT_EQ(StatusesOf(Ask(request)), Statuses{"hit_memory"}) << condition;
    StartWith("anchor");  // the collection's own condition counts
    EXPECT_EQ(StatusesOf(Ask(request)), Statuses{"hit_disk"}) << condition;
  }
}

TEST_F(EncodingTest, TextsOfARequestUseTheConfiguredCondition) {
  std::map<std::string, Statuses> found;
  for (const std::string condition : {"bare", "anchor", "fixed", "own", "neighbour"}) {
    StartWith(condition);
    found[condition] = StatusesOf(Ask(Question({"cats nap"}, CacheMode::kFused, "concat")));
  }
  EXPECT_EQ(found["bare"], Statuses{"computed"});
  EXPECT_EQ(found["anchor"], Statuses{"computed"});
  EXPECT_EQ(found["fixed"], Statuses{"computed"});
  EXPECT_EQ(found["own"], Statuses{"hit_disk"}) << "a text alone has the fixed primer";
  EXPECT_EQ(found["neighbour"], Statuses{"hit_disk"});
}

TEST_F(EncodingTest, ACollectionKeepsItsConditionAndPrimer) {
  CollectionChoice choice;
  choice.primer = "An own primer.";
  const auto made = service_->ingest.OpenCollection("kb", choice);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_EQ(made->ingestion, "fixed");
  EXPECT_EQ(made->primer, TokensOf("An own primer."));
  config_.collection_primer = "Another.";
  StartWith("anchor");
  const auto same = service_->ingest.OpenCollection("kb");
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->primer, made->primer);
  EXPECT_EQ(same->ingestion, "fixed");

  choice.condition = IngestionCondition::kBare;
  EXPECT_EQ(service_->ingest.OpenCollection("kb", choice).status().code(),
            StatusCode::kInvalidArgument)
      << "a primer without a primer's condition";
  choice.primer.reset();
  const auto refused = service_->ingest.OpenCollection("kb", choice);
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("ingestion condition ('fixed', not 'bare')"),
            std::string::npos)
      << refused.status().message();
  choice = {IngestionCondition::kPrimerFixed, "A third."};
  EXPECT_NE(service_->ingest.OpenCollection("kb", choice).status().message().find("primer"),
            std::string::npos);
}

TEST_F(EncodingTest, AnUnknownConditionIsRefused) {
  Collection collection = *service_->ingest.OpenCollection("kb");
  collection.name = "later";
  collection.ingestion = "telepathic";
  ASSERT_TRUE(runtime_->documents().EnsureCollection(collection).ok());
  RagRequest request = Question({}, CacheMode::kFused, "concat");
  request.collection = "later";
  const auto prompt = service_->rag.Prepare(request);
  EXPECT_EQ(prompt.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(prompt.status().message().find("telepathic"), std::string::npos);
  EXPECT_FALSE(service_->ingest.OpenCollection("later").ok());
}

}  // namespace
}  // namespace kvasir
