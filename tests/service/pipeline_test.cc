// Ingestion and question answering end to end on a tiny random model and a counting embedder.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "service/name_space.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

const std::vector<std::string> kTexts = {"the cat sat on the mat", "a dog ran by the sea",
                                         "birds sing at dawn"};

TEST_F(PipelineTest, ExactReusesNothing) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  const CacheReport report = Ask(Question(kTexts, CacheMode::kExact));
  EXPECT_EQ(report.account.computed, report.account.requested);
  EXPECT_EQ(StatusesOf(report), Statuses(3, "computed"));
}

TEST_F(PipelineTest, FusedComputesOnceAndThenHits) {
  const CacheReport first = Ask(Question(kTexts, CacheMode::kFused, "concat"));
  EXPECT_EQ(StatusesOf(first), Statuses(3, "computed"));
  EXPECT_EQ(first.misses, 3);
  EXPECT_EQ(first.account.fused, 0);
  EXPECT_EQ(first.account.computed, first.account.requested);

  auto reversed = kTexts;
  std::reverse(reversed.begin(), reversed.end());
  const CacheReport again = Ask(Question(reversed, CacheMode::kFused, "concat"));
  EXPECT_EQ(StatusesOf(again), Statuses(3, "hit_pool"));
  EXPECT_EQ(again.hits, 3);
  int64_t tokens = 0;
  for (const DocumentReport& document : again.documents) tokens += document.tokens;
  EXPECT_GE(again.account.fused, tokens);
  EXPECT_EQ(again.account.recomputed, 0);
}

TEST_F(PipelineTest, AChunkThatIsThereTwiceIsMadeOnce) {
  const std::vector<std::string> texts = {kTexts[0], kTexts[1], kTexts[0]};
  const CacheReport first = Ask(Question(texts, CacheMode::kFused, "concat"));
  EXPECT_EQ(StatusesOf(first), Statuses(3, "computed"));
  EXPECT_EQ(first.account.computed, first.account.requested);
  EXPECT_EQ(runtime_->cache().counters().inserted, 4u);  // two chunks, anchor and primer
  EXPECT_EQ(StatusesOf(Ask(Question(texts, CacheMode::kFused, "concat"))), Statuses(3, "hit_pool"));
}

// A long answer holds the only place of the engine, and one request may wait: of the four chunks
// that are tried at first three are refused, which shows that they are tried at once.
TEST_F(PipelineTest, RefusedChunksAreComputedInThePrompt) {
  Stop();
  config_.engine_max_waiting = 1;
  config_.engine_max_sequences = 1;
  Start();
  std::vector<std::string> texts;
  for (char c = 'a'; c < 'm'; ++c) texts.push_back("the cat sat on mat " + std::string(1, c));
  std::string exact, fused;
  Ask(Question(texts, CacheMode::kExact), &exact);
  Ask(Question({"anchor"}, CacheMode::kFused, "concat"));
  const auto inserted_before = runtime_->cache().counters().inserted;
  const auto blocker = service_->rag.Prepare(Question({}, CacheMode::kOff));
  ASSERT_TRUE(blocker.ok());
  ASSERT_TRUE(service_->rag
                  .Submit(
                      *blocker, {}, 1000, [](const TokenEvent&) {}, true)
                  .ok());
  const CacheReport report = Ask(Question(texts, CacheMode::kFused, "link(1024)"), &fused);
  EXPECT_EQ(fused, exact);
  EXPECT_EQ(StatusesOf(report), Statuses(texts.size(), "computed"));
  EXPECT_LE(runtime_->cache().counters().inserted - inserted_before, texts.size() - 3);
}

TEST_F(PipelineTest, HitsComeFromDiskAfterARestart) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  Restart();
  const CacheReport report = Ask(Question(kTexts, CacheMode::kFused, "link(4)"));
  EXPECT_EQ(StatusesOf(report), Statuses(3, "hit_disk"));
  EXPECT_EQ(report.account.recomputed, 12);
}

TEST_F(PipelineTest, RecomputingWholeChunksAnswersLikeExact) {
  std::string exact, fused;
  Ask(Question(kTexts, CacheMode::kExact), &exact);
  Ask(Question(kTexts, CacheMode::kFused, "link(1024)"), &fused);
  EXPECT_EQ(fused, exact);
}

TEST_F(PipelineTest, PrefixReusesTheSameBeginningOnly) {
  std::string first, second;
  Ask(Question(kTexts, CacheMode::kPrefix), &first);
  const CacheReport again = Ask(Question(kTexts, CacheMode::kPrefix), &second);
  EXPECT_GT(again.account.prefix, again.account.requested / 2);
  EXPECT_EQ(again.account.fused, 0);
  EXPECT_EQ(first, second);
  auto other = kTexts;
  std::swap(other[0], other[2]);
  const CacheReport moved = Ask(Question(other, CacheMode::kPrefix));
  EXPECT_LT(moved.account.prefix, again.account.prefix);
}

TEST_F(PipelineTest, ASystemMessageHasItsOwnAnchor) {
  Ask(Question(kTexts, CacheMode::kFused, "concat"));
  RagRequest request = Question(kTexts, CacheMode::kFused, "concat");
  request.messages.insert(request.messages.begin(), {"system", "Be rude."});
  EXPECT_EQ(StatusesOf(Ask(request)), Statuses(3, "computed"));
  EXPECT_EQ(StatusesOf(Ask(request)), Statuses(3, "hit_pool"));
}

TEST_F(PipelineTest, NothingIsSharedAcrossSalts) {
  for (const CacheMode mode : {CacheMode::kFused, CacheMode::kPrefix}) {
    RagRequest request = Question(kTexts, mode, mode == CacheMode::kFused ? "concat" : "");
    const auto reused = [&](const std::string& salt) {
      request.cache_salt = salt;
      const PromptAccount account = Ask(request).account;
      return account.fused + account.prefix;
    };
    EXPECT_EQ(reused("one"), 0);
    EXPECT_GT(reused("one"), 0);
    EXPECT_EQ(reused("two"), 0);
    EXPECT_EQ(reused(""), 0);
    EXPECT_GT(reused("two"), 0);
    EXPECT_GT(reused(""), 0);
  }
}

TEST_F(PipelineTest, IngestedKvIsOfNoSalt) {
  const std::string file = WriteFile("cats.txt", "cats chase mice in attics");
  ASSERT_TRUE(service_->ingest.IngestFiles("default", {file}, false, nullptr).failures.empty());
  RagRequest request = Question({}, CacheMode::kFused, "concat");
  request.collection = "default";
  request.cache_salt = "one";
  EXPECT_EQ(Ask(request).hits, 0);
  EXPECT_EQ(Ask(request).misses, 0);
  request.cache_salt = "";
  EXPECT_EQ(Ask(request).misses, 0);
}

// A namespace is never that of another pair, and shows its collection but not its salt.
TEST(Namespace, PairsDoNotCollide) {
  const std::vector<std::string> parts = {"a", "b", "salt", "1.a", "a.b-c_d"};
  const std::vector<std::string> salts = {"", "a", ":", "a:a", "1:a:a", "salt:1:a", "\n", "b"};
  std::set<std::string> seen;
  for (const std::string& collection : parts) {
    for (const std::string& salt : salts) {
      EXPECT_TRUE(seen.insert(SaltedNamespace(collection, salt)).second) << collection << salt;
      EXPECT_EQ(CollectionOfNamespace(SaltedNamespace(collection, salt)), collection);
    }
    EXPECT_EQ(SaltedNamespace(collection, ""), collection);
  }
}

TEST_F(PipelineTest, FiltersNarrowTheSearch) {
  for (const char* body : {R"({"id":"d1","text":"cats nap","metadata":{"year":"1999"}})",
                           R"({"id":"d2","text":"cats run","metadata":{"year":"2000"}})"}) {
    ASSERT_EQ(Call(*service_, "POST", "/v1/documents", body).status, 200);
  }
  const auto found = [this](const std::string& filters) {
    const std::string body = R"({"query":"cats","filters":)" + filters + "}";
    const std::string reply = Call(*service_, "POST", "/v1/search", body).body;
    return std::string(reply.find("cats nap") == std::string::npos ? "" : "1") +
           (reply.find("cats run") == std::string::npos ? "" : "2");
  };
  EXPECT_EQ(found("{}"), "12");
  EXPECT_EQ(found(R"({"year":"1999"})"), "1");
  EXPECT_EQ(found(R"({"document_id":"d2"})"), "2");
  EXPECT_EQ(found(R"({"document_id":"d2","year":"1999"})"), "");
  const HttpReply bad =
      Call(*service_, "POST", "/v1/search", R"({"query":"cats","filters":{"year":1}})");
  EXPECT_EQ(bad.status, 400);
  EXPECT_NE(bad.body.find("\"param\":\"filters\""), std::string::npos) << bad.body;

  RagRequest request = Question({}, CacheMode::kFused, "concat");
  request.collection = "default";
  request.filter.metadata["year"] = "2000";
  const CacheReport report = Ask(request);
  ASSERT_EQ(report.documents.size(), 1u);
  EXPECT_EQ(report.documents[0].id, "d2");
}

TEST_F(PipelineTest, OnMissingErrorRefuses) {
  RagRequest request = Question(kTexts, CacheMode::kFused, "concat");
  request.cache.compute_missing = false;
  const auto prompt = service_->rag.Prepare(request);
  ASSERT_FALSE(prompt.ok());
  EXPECT_EQ(prompt.status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(PipelineTest, StoreFalseLeavesNothingOnDisk) {
  RagRequest request = Question(kTexts, CacheMode::kFused, "concat");
  request.cache.store = false;
  Ask(request);
  Restart();
  EXPECT_EQ(StatusesOf(Ask(request)), Statuses(3, "computed"));
}

TEST_F(PipelineTest, UnknownDocumentAndCollectionAreNotFound) {
  RagRequest request = Question({}, CacheMode::kAuto);
  request.documents.push_back({"nobody", "", "", false});
  EXPECT_EQ(service_->rag.Prepare(request).status().code(), StatusCode::kNotFound);
  request.documents.clear();
  request.collection = "nowhere";
  EXPECT_EQ(service_->rag.Prepare(request).status().code(), StatusCode::kNotFound);
}

TEST_F(PipelineTest, IngestedDocumentsAreFoundAndHit) {
  const std::vector<std::string> files = {WriteFile("cats.txt", "cats chase mice in attics"),
                                          WriteFile("boats.txt", "boats float on blue bays")};
  const IngestReport report = service_->ingest.IngestFiles("default", files, false, nullptr);
  EXPECT_TRUE(report.failures.empty());
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.chunks_computed, report.chunks);
  RagRequest request = Question({}, CacheMode::kFused, "concat");
  request.collection = "default";
  request.top_k = 2;
  const CacheReport asked = Ask(request);
  ASSERT_EQ(asked.documents.size(), 2u);
  EXPECT_EQ(asked.misses, 0);
}

TEST_F(PipelineTest, IngestionResumes) {
  const std::string file = WriteFile("cats.txt", "cats chase mice in attics");
  const IngestReport first = service_->ingest.IngestFiles("default", {file}, false, nullptr);
  ASSERT_TRUE(first.failures.empty()) << first.failures[0].message;
  const IngestReport second = service_->ingest.IngestFiles("default", {file}, false, nullptr);
  EXPECT_EQ(second.unchanged, 1);
  EXPECT_EQ(second.chunks_computed, 0);
  EXPECT_EQ(second.tokens, first.tokens);

  // KV that was lost is made again, although the document is unchanged.
  const auto chunks = runtime_->documents().GetChunks(file);
  ASSERT_TRUE(chunks.ok());
  const auto anchor = service_->ingest.AnchorOf(config_.collection_system);
  ASSERT_TRUE(anchor.ok());
  const ChunkKey key =
      runtime_->KeyOf("default", runtime_->encoding().Context(*anchor), chunks->at(0).token_ids);
  ASSERT_TRUE(runtime_->cache().Remove(key).ok());
  const IngestReport third = service_->ingest.IngestFiles("default", {file}, false, nullptr);
  EXPECT_EQ(third.unchanged, 1);
  EXPECT_EQ(third.chunks_computed, 1);
}

TEST_F(PipelineTest, TheTokensToComputeAreKnownBeforehand) {
  const std::vector<std::string> files = {WriteFile("a.txt", "cats chase mice in attics"),
                                          folder_ + "/missing.txt",
                                          WriteFile("b.txt", "boats float on blue bays")};
  std::vector<IngestProgress> told;
  const auto sink = [&told](const IngestProgress& progress) { told.push_back(progress); };
  const IngestReport report = service_->ingest.IngestFiles("default", files, false, sink);
  ASSERT_GT(report.tokens_computed, 0);
  double eta_known = 0;
  for (const IngestProgress& progress : told) {
    if (progress.counting) continue;
    EXPECT_EQ(progress.tokens_to_compute, report.tokens_computed);
    EXPECT_LE(progress.tokens_computed, progress.tokens_to_compute);
    eta_known += progress.Eta() >= 0 ? 1 : 0;
  }
  EXPECT_GE(eta_known, 2);
  EXPECT_TRUE(told.front().counting);
  EXPECT_EQ(told.back().Eta(), 0);
  EXPECT_EQ(told.back().documents_done, 3u);

  told.clear();  // what is stored is no work
  service_->ingest.IngestFiles("default", files, false, sink);
  for (const IngestProgress& progress : told) EXPECT_EQ(progress.tokens_to_compute, 0);
  EXPECT_EQ(told.back().Share(), 1);
}

TEST_F(PipelineTest, ABadFileIsNamedAndTheRestGoesOn) {
  const std::string good = WriteFile("cats.txt", "cats chase mice");
  const std::vector<std::string> files = {folder_ + "/missing.txt", good};
  const IngestReport report = service_->ingest.IngestFiles("default", files, false, nullptr);
  ASSERT_EQ(report.failures.size(), 1u);
  EXPECT_EQ(report.failures[0].name, files[0]);
  EXPECT_EQ(report.documents, 1);
  const IngestReport strict = service_->ingest.IngestFiles("default", files, true, nullptr);
  EXPECT_EQ(strict.documents, 0);
}

TEST_F(PipelineTest, DryRunCountsWhatIngestionMakes) {
  const std::string file = WriteFile("cats.txt", "cats chase mice in attics and cellars");
  const DryRunReport dry = service_->ingest.DryRun({file});
  const IngestReport real = service_->ingest.IngestFiles("default", {file}, false, nullptr);
  EXPECT_EQ(dry.tokens, real.tokens);
  EXPECT_EQ(dry.chunks, real.chunks);
  EXPECT_GT(dry.kv_bytes_fp16, dry.kv_bytes_int8);
  EXPECT_GT(dry.kv_bytes_int8, dry.kv_bytes_int4);
}

TEST_F(PipelineTest, ADeletedDocumentIsGone) {
  const std::string file = WriteFile("cats.txt", "cats chase mice");
  ASSERT_TRUE(service_->ingest.IngestFiles("default", {file}, false, nullptr).failures.empty());
  ASSERT_TRUE(service_->ingest.Delete(file).ok());
  EXPECT_EQ(runtime_->documents().Get(file).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(service_->ingest.Delete(file).code(), StatusCode::kNotFound);
}

// ---- routes, without sockets

TEST_F(PipelineTest, DocumentRoutes) {
  HttpReply reply = Call(*service_, "POST", "/v1/documents", R"({"id":"d","text":"cats nap"})");
  EXPECT_EQ(reply.status, 200) << reply.body;
  EXPECT_NE(reply.body.find("\"chunks_computed\":1"), std::string::npos) << reply.body;
  EXPECT_EQ(Call(*service_, "GET", "/v1/documents/d").status, 200);
  EXPECT_NE(Call(*service_, "GET", "/v1/documents").body.find("\"id\":\"d\""), std::string::npos);
  reply = Call(*service_, "POST", "/v1/search", R"({"query":"cats"})");
  EXPECT_NE(reply.body.find("cats nap"), std::string::npos) << reply.body;
  EXPECT_EQ(Call(*service_, "DELETE", "/v1/documents/d").status, 200);
  EXPECT_EQ(Call(*service_, "GET", "/v1/documents/d").status, 404);
  EXPECT_EQ(Call(*service_, "POST", "/v1/documents", R"({"id":"d"})").status, 400);
  EXPECT_EQ(Call(*service_, "PATCH", "/v1/documents").status, 405);
  EXPECT_EQ(Call(*service_, "GET", "/v1/documents?limit=0").status, 400);
}

TEST_F(PipelineTest, NdjsonGivesOneLineALine) {
  const HttpReply reply =
      Call(*service_, "POST", "/v1/documents",
           "{\"id\":\"a\",\"text\":\"cats\"}\n{\"id\":\"b\"}\n\n{\"id\":\"c\",\"text\":\"sea\"}\n",
           "application/x-ndjson");
  EXPECT_EQ(std::count(reply.body.begin(), reply.body.end(), '\n'), 3);
  EXPECT_NE(reply.body.find("\"error\""), std::string::npos);
}

TEST_F(PipelineTest, InfoRoutes) {
  for (const char* path :
       {"/health", "/readyz", "/version", "/v1/models", "/v1/stats", "/metrics"}) {
    EXPECT_EQ(Call(*service_, "GET", path).status, 200) << path;
  }
  service_->draining = true;
  EXPECT_EQ(Call(*service_, "GET", "/readyz").status, 503);
  const HttpReply ids = Call(*service_, "POST", "/tokenize", R"({"prompt":"cats"})");
  EXPECT_NE(ids.body.find("\"count\""), std::string::npos);
  const HttpReply both = Call(*service_, "POST", "/v1/embeddings",
                              R"({"input":["a","b"],"encoding_format":"base64"})");
  EXPECT_EQ(both.status, 200) << both.body;
}

TEST_F(PipelineTest, AStreamHasRolesTextFinishAndUsage) {
  const std::string stream = RunGeneration(
      *service_,
      R"({"messages":[{"role":"user","content":"hi"}],"documents":["cats nap"],"max_tokens":4,
          "stream":true,"stream_options":{"include_usage":true},"n":2})",
      nullptr);
  EXPECT_TRUE(stream.starts_with("data: {\"id\":\"chatcmpl-"));
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n"));
  EXPECT_NE(stream.find(R"("delta":{"role":"assistant","content":""})"), std::string::npos);
  EXPECT_NE(stream.find(R"("choices":[],"usage":{)"), std::string::npos) << stream;
  EXPECT_NE(stream.find(R"("chunk_cache":{)"), std::string::npos);
  EXPECT_NE(stream.find(R"("index":1)"), std::string::npos);
}

TEST_F(PipelineTest, AWholeReplyHasTheAccount) {
  HttpReply reply;
  RunGeneration(*service_,
                R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":4,"logprobs":true,
                    "top_logprobs":2})",
                &reply);
  EXPECT_EQ(reply.status, 200);
  for (const char* part : {R"("object":"chat.completion")", R"("prompt_tokens_details")",
                           R"("charged_fraction")", R"("top_logprobs":[{)"}) {
    EXPECT_NE(reply.body.find(part), std::string::npos) << part << "\n" << reply.body;
  }
}

TEST_F(PipelineTest, TooLongAPromptNamesTheLimit) {
  auto request = ParseChatRequest(
      R"({"messages":[{"role":"user","content":")" + std::string(20000, 'a') + R"("}]})", {});
  ASSERT_TRUE(request.ok());
  auto run = Generation::Start(*service_, std::move(*request), [] {});
  ASSERT_FALSE(run.ok());
  EXPECT_EQ(run.error().status, 400);
  EXPECT_NE(run.error().message.find("4096"), std::string::npos) << run.error().message;
}

TEST_F(PipelineTest, TheDataFolderIsLocked) {
  const auto second = Runtime::Create(config_, parts_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find(config_.data_folder), std::string::npos);
}

}  // namespace
}  // namespace kvasir
