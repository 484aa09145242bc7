// Chunks encoded behind other chunks: own and neighbour, from ingestion to deletion.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "service/chunk_prefill.h"
#include "service/encoding.h"
#include "service/kv_upkeep.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

class PrimerTest : public PipelineTest {
 protected:
  void StartWith(const std::string& condition) {
    Stop();
    config_.collection_ingestion = condition;
    Start();
  }
  // A document of one chunk a text (fewer if its letters make few tokens).
  IngestOutcome Ingest(const std::string& id, const std::vector<std::string>& texts) {
    IngestInput input;
    input.id = id;
    for (const std::string& text : texts) input.bytes += Paragraph(text) + "\n\n";
    input.format = DocumentFormat::kText;
    const auto outcome = service_->ingest.IngestOne("kb", input);
    EXPECT_TRUE(outcome.ok()) << outcome.status().ToString();
    return outcome.ok() ? *outcome : IngestOutcome();
  }
  // So long that no two fit into a chunk of 96 tokens.
  static std::string Paragraph(const std::string& text) {
    std::string all;
    while (all.size() < 60) all += text + " ";
    return all;
  }
  std::vector<Chunk> Chunks(const std::string& id) { return *runtime_->documents().GetChunks(id); }
  // The text that the only chunk of a document stands behind, "" for the fixed primer.
  std::string Behind(const std::string& id, size_t index = 0) {
    const Chunk chunk = Chunks(id).at(index);
    if (chunk.primer == 0) return "";
    const auto primer = runtime_->documents().GetChunk(chunk.primer);
    return primer.ok() ? primer->text.substr(0, primer->text.find(' ')) : "gone";
  }
  CollectionContext Context() {
    const auto collection = runtime_->documents().GetCollection("kb");
    return {"kb", *service_->ingest.AnchorOf(collection->system_text), *EncodingOf(*collection)};
  }
  bool HasKv(const Ids& ids, const Ids& primer) {
    const ChunkContext context = Context().encoding.Context(Context().anchor, primer);
    return runtime_->cache().Contains(runtime_->KeyOf("kb", context, ids), ids) != std::nullopt;
  }
  // Whether all chunks of a document have KV behind what their records name, and no other KV.
  void ExpectKvInStep(const std::string& id) {
    for (const Chunk& chunk : Chunks(id)) {
      EXPECT_TRUE(HasKv(chunk.token_ids, OwnPrimer(runtime_->documents(), chunk))) << id;
    }
  }
  Statuses AskFor(const std::string& id) {
    RagRequest request = Question({}, CacheMode::kFused, "concat");
    request.documents.push_back({id, "", "", false});
    return StatusesOf(Ask(request));
  }
};

TEST_F(PrimerTest, OwnIsTheChunkBefore) {
  StartWith("own");
  EXPECT_EQ(Ingest("d", {"cats", "dogs", "birds"}).chunks_computed, 3);
  EXPECT_EQ(Behind("d", 0), "");
  EXPECT_EQ(Behind("d", 1), "cats");
  EXPECT_EQ(Behind("d", 2), "dogs");
  ExpectKvInStep("d");
  const auto chunks = Chunks("d");
  EXPECT_FALSE(HasKv(chunks[1].token_ids, {})) << "the fixed primer is another key";
  EXPECT_EQ(AskFor("d"), Statuses(3, "hit_memory"));
  RagRequest request = Question({}, CacheMode::kFused, "concat");
  request.collection = "kb";
  EXPECT_EQ(Ask(request).misses, 0) << "found by search";
  StartWith("anchor");
  EXPECT_EQ(AskFor("d"), Statuses(3, "hit_disk"));
}

TEST_F(PrimerTest, OwnReencodesTheChunkBehindAChange) {
  StartWith("own");
  Ingest("d", {"cats", "dogs", "birds", "fish"});
  const auto before = Chunks("d");
  EXPECT_EQ(Ingest("d", {"cats", "cows", "birds", "fish"}).chunks_computed, 2)
      << "the changed chunk and the one behind it";
  ExpectKvInStep("d");
  EXPECT_FALSE(HasKv(before[1].token_ids, before[0].token_ids)) << "dogs";
  EXPECT_FALSE(HasKv(before[2].token_ids, before[1].token_ids)) << "birds behind dogs";
  EXPECT_TRUE(HasKv(before[3].token_ids, before[2].token_ids)) << "fish behind birds";
  ASSERT_TRUE(service_->ingest.Delete("d").ok());
  EXPECT_FALSE(HasKv(before[3].token_ids, before[2].token_ids));
  EXPECT_FALSE(HasKv(before[0].token_ids, {}));
}

TEST_F(PrimerTest, APrimerWithoutTextIsRefused) {
  const CollectionChoice choice{IngestionCondition::kPrimerFixed, " \n\n \n"};
  const Status refused = service_->ingest.OpenCollection("kb", choice).status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.message().find("no text"), std::string::npos) << refused.message();
  EXPECT_EQ(runtime_->documents().GetCollection("kb").status().code(), StatusCode::kNotFound);
  Stop();
  config_.collection_primer = "\n";
  const auto runtime = Runtime::Create(config_, parts_);
  ASSERT_FALSE(runtime.ok());
  EXPECT_NE(runtime.status().message().find("collection.primer"), std::string::npos);
  config_.collection_primer.clear();
  Start();
}

TEST_F(PrimerTest, WhatDoesNotFitTheContextIsNamed) {
  Stop();
  config_.collection_ingestion = "own";
  config_.engine_max_context = 200;
  config_.collection_primer = "x";
  Start();
  IngestInput input;
  input.id = "d";
  input.bytes = Paragraph("cats") + "\n\n" + Paragraph("dogs") + "\n\n";
  const auto fits = service_->ingest.IngestOne("kb", input);
  EXPECT_TRUE(fits.ok()) << fits.status().ToString();
  Stop();
  config_.engine_max_context = 150;
  Start();
  input.bytes = Paragraph("cows") + "\n\n" + Paragraph("pigs") + "\n\n";
  const auto refused = service_->ingest.IngestOne("kb", input);
  ASSERT_EQ(refused.status().code(), StatusCode::kInvalidArgument) << refused.status().ToString();
  for (const char* part : {"150", "anchor ", "primer ", "chunk ", "smaller chunks"}) {
    EXPECT_NE(refused.status().message().find(part), std::string::npos)
        << part << " in " << refused.status().message();
  }
}

// Lost KV of a chunk is made behind its own primer at request time, too.
TEST_F(PrimerTest, AMissIsComputedBehindTheSamePrimer) {
  StartWith("own");
  Ingest("d", {"cats", "dogs"});
  const auto chunks = Chunks("d");
  const ChunkContext context = Context().encoding.Context(Context().anchor, chunks[0].token_ids);
  const ChunkKey key = runtime_->KeyOf("kb", context, chunks[1].token_ids);
  ASSERT_TRUE(*runtime_->cache().Remove(key));
  EXPECT_EQ(AskFor("d"), (Statuses{"hit_memory", "computed"}));
  EXPECT_TRUE(runtime_->cache().Contains(key, chunks[1].token_ids));
  EXPECT_EQ(AskFor("d"), Statuses(2, "hit_pool"));
}

TEST_F(PrimerTest, NeighbourIsTheNearestOtherChunk) {
  StartWith("neighbour");
  Ingest("a", {"aaaa"});
  EXPECT_EQ(Behind("a"), "") << "alone";
  Ingest("b", {"aabb"});
  Ingest("z", {"zzzz"});
  Ingest("c", {"bbbb"});
  EXPECT_EQ(Behind("b"), "aaaa");
  EXPECT_EQ(Behind("c"), "aabb");
  ExpectKvInStep("b");
  ExpectKvInStep("c");
  const Ids alone = Chunks("a")[0].token_ids;
  EXPECT_TRUE(HasKv(alone, {}));
  EXPECT_TRUE(Ingest("a", {"aaaa"}).unchanged);
  EXPECT_EQ(Behind("a"), "aabb") << "found when it is ingested again";
  ExpectKvInStep("a");
  EXPECT_FALSE(HasKv(alone, {})) << "what it had before is gone";
  for (const char* id : {"a", "b", "c", "z"}) EXPECT_EQ(AskFor(id), Statuses{"hit_memory"}) << id;
}

TEST_F(PrimerTest, ACopyIsNoNeighbour) {
  StartWith("neighbour");
  Ingest("a", {"aaaa"});
  Ingest("b", {"aaaa"});
  EXPECT_EQ(Behind("b"), "");
  Ingest("c", {"aaaz"});
  Ingest("b", {"aaaa"});
  EXPECT_EQ(Behind("b"), "aaaz");
}

// All files are stored before the first is encoded.
TEST_F(PrimerTest, FilesFindNeighboursAmongThoseBehindThem) {
  StartWith("neighbour");
  const std::vector<std::string> files = {WriteFile("a.txt", Paragraph("aaaa")),
                                          folder_ + "/missing.txt",
                                          WriteFile("b.txt", Paragraph("aaab"))};
  const IngestReport report = service_->ingest.IngestFiles("kb", files, false, nullptr);
  ASSERT_EQ(report.failures.size(), 1u);
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.unchanged, 0);
  EXPECT_EQ(report.chunks_computed, 2);
  EXPECT_EQ(Behind(files[0]), "aaab");
  EXPECT_EQ(Behind(files[2]), "aaaa");
  const IngestReport again = service_->ingest.IngestFiles("kb", files, false, nullptr);
  EXPECT_EQ(again.unchanged, 2);
  EXPECT_EQ(again.chunks_computed, 0);
}

TEST_F(PrimerTest, DeletionReencodesWhatStoodBehind) {
  StartWith("neighbour");
  Ingest("a", {"aaaa"});
  Ingest("far", {"zzzz"});
  Ingest("b", {"aaab"});
  Ingest("c", {"aaac"});
  const Ids a = Chunks("a")[0].token_ids, b = Chunks("b")[0].token_ids;
  ASSERT_EQ(Behind("b"), "aaaa");
  ASSERT_TRUE(HasKv(b, a));
  ASSERT_TRUE(service_->ingest.Delete("a").ok());
  EXPECT_FALSE(HasKv(b, a)) << "it saw the deleted text";
  EXPECT_EQ(Behind("b"), "aaac");
  ExpectKvInStep("b");
  ExpectKvInStep("c");
  Restart();
  EXPECT_FALSE(HasKv(b, a)) << "nor on disk";
  EXPECT_EQ(AskFor("b"), Statuses{"hit_disk"});
  // The last neighbours go: the fixed primer stands in.
  for (const char* id : {"far", "c"}) ASSERT_TRUE(service_->ingest.Delete(id).ok());
  EXPECT_EQ(Behind("b"), "");
  ExpectKvInStep("b");
  EXPECT_TRUE(runtime_->documents().ChunksBehindNothing()->empty());
}

// A request with its own system text leaves KV behind another anchor and the same primer.
TEST_F(PrimerTest, DeletionReachesKvOfOtherSystemTexts) {
  StartWith("neighbour");
  Ingest("a", {"aaaa"});
  Ingest("b", {"aaab"});
  const Ids a = Chunks("a")[0].token_ids, b = Chunks("b")[0].token_ids;
  RagRequest request = Question({}, CacheMode::kFused, "concat");
  request.messages.insert(request.messages.begin(), {"system", "Be rude."});
  for (const char* id : {"a", "b"}) request.documents.push_back({id, "", "", false});
  EXPECT_EQ(StatusesOf(Ask(request)), Statuses(2, "computed"));
  const auto prompt = runtime_->chat_template().Render(request.messages, true, "Answer.");
  const ChunkKey rude = runtime_->KeyOf("kb", {prompt->anchor, a}, b);
  const ChunkKey own = runtime_->KeyOf("kb", Context().encoding.Context(prompt->anchor), a);
  ASSERT_TRUE(runtime_->cache().Contains(rude, b));
  ASSERT_TRUE(runtime_->cache().Contains(own, a));
  ASSERT_TRUE(service_->ingest.Delete("a").ok());
  EXPECT_FALSE(runtime_->cache().Contains(rude, b)) << "it saw the deleted text";
  EXPECT_FALSE(runtime_->cache().Contains(own, a)) << "the deleted text itself";
}

TEST_F(PrimerTest, ANewVersionReencodesOnlyWhatSawTheChange) {
  StartWith("neighbour");
  Ingest("d", {"aaaa", "kkkk"});
  Ingest("a2", {"aaab"});
  Ingest("k2", {"kkkl"});
  const auto old = Chunks("d");
  const Ids a2 = Chunks("a2")[0].token_ids, k2 = Chunks("k2")[0].token_ids;
  ASSERT_EQ(Behind("a2"), "aaaa");
  ASSERT_EQ(Behind("k2"), "kkkk");
  EXPECT_EQ(Ingest("d", {"aaaa", "qqqq"}).chunks_computed, 2)
      << "the new chunk, and the one that stood behind the old one";
  EXPECT_EQ(Behind("a2"), "aaaa") << "the same text in the new version";
  EXPECT_TRUE(HasKv(a2, old[0].token_ids));
  EXPECT_FALSE(HasKv(k2, old[1].token_ids));
  EXPECT_NE(Behind("k2"), "kkkk");
  for (const char* id : {"d", "a2", "k2"}) ExpectKvInStep(id);
  ASSERT_TRUE(service_->ingest.Delete("d").ok());
  for (const char* id : {"a2", "k2"}) ExpectKvInStep(id);
  EXPECT_FALSE(HasKv(a2, old[0].token_ids));
}

// As if the process had died between the deletion and the choice of another primer.
TEST_F(PrimerTest, AChunkThatLostItsPrimerHasTheFixedOneAndIsHealed) {
  StartWith("neighbour");
  const std::vector<std::string> files = {WriteFile("b.txt", Paragraph("aaab")),
                                          WriteFile("c.txt", Paragraph("aacc"))};
  Ingest("a", {"aaaa"});
  ASSERT_TRUE(service_->ingest.IngestFiles("kb", files, false, nullptr).failures.empty());
  ASSERT_EQ(Behind(files[0]), "aaaa");
  ASSERT_TRUE((*runtime_->retrieval())->Delete("a").ok());
  EXPECT_EQ(Behind(files[0]), "gone");
  EXPECT_EQ(AskFor(files[0]), Statuses{"computed"});
  EXPECT_TRUE(HasKv(Chunks(files[0])[0].token_ids, {})) << "behind the fixed primer";
  service_->ingest.IngestFiles("kb", {files[1]}, false, nullptr);
  EXPECT_EQ(Behind(files[0]), "aacc");
  ExpectKvInStep(files[0]);
  EXPECT_FALSE(HasKv(Chunks(files[0])[0].token_ids, {}));
}

// KV that was being made while its primer went does not stay.
TEST_F(PrimerTest, KvBehindAReplacedPrimerIsRemovedWhenItIsDone) {
  StartWith("neighbour");
  Ingest("a", {"aaaa"});
  Ingest("b", {"aaab"});
  const Chunk b = Chunks("b")[0];
  const ChunkToMake made = StoredChunk(runtime_->documents(), Context(), b);
  ASSERT_TRUE(service_->ingest.Delete("a").ok());
  ChunkPrefill prefill(*runtime_);
  const ChunkKey key = prefill.KeyOf(Context(), made);
  const auto anchor = prefill.Anchor("kb", Context().anchor, true);
  ASSERT_TRUE(prefill.Make("kb", *anchor, {made}, true, true, nullptr).ok());
  ASSERT_TRUE(prefill.IsStored(Context(), made));
  prefill.RemoveIfOutdated(key, b.id, made);
  EXPECT_FALSE(prefill.IsStored(Context(), made));
  ExpectKvInStep("b");
}

TEST_F(PrimerTest, NeighbourIsRefusedWhereRightsMayDiffer) {
  StartWith("neighbour");
  Ingest("a", {"aaaa"});
  RagRequest request = Question({}, CacheMode::kFused, "concat");
  const auto refusal = [&](const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
    EXPECT_NE(status.message().find("condition own or fixed"), std::string::npos);
    return status.message();
  };
  request.cache_salt = "tenant";
  EXPECT_TRUE(service_->rag.Prepare(request).ok()) << "no collection, nothing shared";
  request.collection = "kb";
  EXPECT_NE(refusal(service_->rag.Prepare(request).status()).find("cache_salt"), std::string::npos);
  request.collection.clear();
  request.documents.push_back({"a", "", "", false});
  refusal(service_->rag.Prepare(request).status());
  request.cache_salt.clear();
  EXPECT_TRUE(service_->rag.Prepare(request).ok());
  IngestInput salted;
  salted.id = "s";
  salted.bytes = "text";
  salted.cache_salt = "tenant";
  refusal(service_->ingest.IngestOne("kb", salted).status());

  config_.server_api_keys = {"one", "two"};
  StartWith("neighbour");
  EXPECT_NE(refusal(service_->rag.Prepare(request).status()).find("2 keys"), std::string::npos);
  refusal(service_->ingest.OpenCollection("kb").status());
  refusal(service_->ingest.OpenCollection("new").status());
  EXPECT_TRUE(
      service_->ingest.OpenCollection("new", {IngestionCondition::kPrimerOwn, std::nullopt}).ok());
  EXPECT_TRUE(service_->ingest.Delete("a").ok()) << "deleting is never refused";
  config_.server_api_keys = {"one"};
  StartWith("neighbour");
  EXPECT_TRUE(service_->ingest.OpenCollection("kb").ok());
}

// ---- over HTTP

TEST_F(PrimerTest, DocumentsNameTheCondition) {
  const auto post = [this](const std::string& fields) {
    return Call(*service_, "POST", "/v1/documents",
                R"({"id":"d","text":"cats nap","collection":"kb",)" + fields + "}");
  };
  EXPECT_EQ(post(R"("ingestion":"own","primer":"Dogs run.")").status, 200);
  EXPECT_EQ(runtime_->documents().GetCollection("kb")->ingestion, "own");
  EXPECT_EQ(runtime_->documents().GetCollection("kb")->primer,
            *runtime_->chat_template().RenderDocument("", "Dogs run."));
  const std::string stats = Call(*service_, "GET", "/v1/stats").body;
  EXPECT_NE(stats.find(R"("ingestion":"own")"), std::string::npos) << stats;
  EXPECT_EQ(post(R"("ingestion":"own")").status, 200) << "the same again";
  EXPECT_EQ(post(R"("ingestion":"bare")").status, 409);
  const HttpReply bad = post(R"("ingestion":"psychic")");
  EXPECT_EQ(bad.status, 400);
  EXPECT_NE(bad.body.find(R"("param":"ingestion")"), std::string::npos) << bad.body;
}

TEST_F(PrimerTest, ASaltedDocumentIsRefusedByNeighbour) {
  StartWith("neighbour");
  const HttpReply reply =
      Call(*service_, "POST", "/v1/documents", R"({"id":"d","text":"x","cache_salt":"tenant"})");
  EXPECT_EQ(reply.status, 409);
  EXPECT_NE(reply.body.find("cache_salt"), std::string::npos) << reply.body;
}

// Random changes: after each, every chunk has KV behind exactly what its record names, and no chunk
// has any behind a text that is gone.
TEST_F(PrimerTest, KvStaysInStepUnderRandomChanges) {
  StartWith("neighbour");
  std::mt19937 random(5);
  std::set<std::string> there;
  std::map<std::string, Ids> ever;  // text to token ids
  for (int step = 0; step < 60; ++step) {
    const std::string id = "d" + std::to_string(random() % 5);
    if (random() % 4 == 0) {
      EXPECT_EQ(service_->ingest.Delete(id).ok(), there.erase(id) > 0);
    } else {
      std::vector<std::string> texts;
      for (uint32_t i = 0; i < 1 + random() % 2; ++i) {
        const char first = static_cast<char>('a' + random() % 4);
        texts.push_back(std::string(3, first) + static_cast<char>('a' + random() % 4));
      }
      Ingest(id, texts);
      there.insert(id);
      for (const Chunk& chunk : Chunks(id)) ever[chunk.text] = chunk.token_ids;
    }
    std::set<std::string> live;
    for (const std::string& document : there) {
      ExpectKvInStep(document);
      for (const Chunk& chunk : Chunks(document)) live.insert(chunk.text);
    }
    for (const auto& [text, ids] : ever) {
      for (const auto& [other, primer] : ever) {
        if (live.contains(text) && live.contains(other)) continue;
        EXPECT_FALSE(HasKv(ids, primer)) << text << " behind " << other << " at " << step;
      }
    }
    ASSERT_FALSE(HasFailure()) << step;
  }
}

}  // namespace
}  // namespace kvasir
