#include "retrieval/retriever.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "retrieval/near_duplicate.h"
#include "test_support.h"

namespace kvasir {
namespace {

using testing::DocumentOf;
using testing::MapStore;
using testing::OneChunkDocument;
using testing::WordEmbedder;

class RetrieverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Reopen();
    Collection collection;
    collection.name = "kb";
    collection.model_digest = "m";
    const auto made = retriever_->EnsureCollection(collection);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    EXPECT_EQ(made->embedder, "words");
    EXPECT_EQ(made->dimension, WordEmbedder::kWidth);
  }
  void Reopen() {
    retriever_.reset();
    documents_ = DocumentStore::Open(store_).value();
    retriever_ = Retriever::Open(*documents_, embedder_).value();
  }
  PutOutcome Put(NewDocument document) {
    auto put = retriever_->Put(std::move(document));
    EXPECT_TRUE(put.ok()) << put.status().ToString();
    return put.ok() ? *put : PutOutcome{};
  }
  std::vector<std::string> Texts(const std::string& query, int32_t top_k,
                                 SearchFilter filter = {}) {
    SearchRequest request;
    request.collection = "kb";
    request.query = query;
    request.top_k = top_k;
    request.filter = std::move(filter);
    const auto hits = retriever_->Search(request);
    EXPECT_TRUE(hits.ok()) << hits.status().ToString();
    std::vector<std::string> texts;
    for (const SearchHit& hit : *hits) texts.push_back(hit.chunk.text);
    return texts;
  }
  using Strings = std::vector<std::string>;

  MapStore store_;
  WordEmbedder embedder_;
  std::unique_ptr<DocumentStore> documents_;
  std::unique_ptr<Retriever> retriever_;
};

TEST_F(RetrieverTest, HandCase) {
  Put(DocumentOf("kb", "cats", {"cats purr softly", "dogs bark loudly"}));
  Put(OneChunkDocument("kb", "fish", "fish swim deep"));
  SearchRequest request{"kb", "how do cats purr", 2, -1.0f, {}};
  const auto hits = retriever_->Search(request);
  ASSERT_TRUE(hits.ok());
  ASSERT_EQ(hits->size(), 2u);
  const SearchHit& best = hits->front();
  EXPECT_EQ(best.chunk.text, "cats purr softly");
  // Two of three words shared with two of four: 2 / sqrt(12), unless words share a bin.
  EXPECT_NEAR(best.score, 2 / std::sqrt(12.0), 0.01);
  EXPECT_EQ(best.chunk.document_id, "cats");
  EXPECT_EQ(best.document_title, "Title of cats");
  EXPECT_EQ(best.source, "/docs/cats");
  EXPECT_EQ(best.version, 1);
  EXPECT_GE(best.score, (*hits)[1].score);
  request.min_score = 0.5f;
  EXPECT_EQ(retriever_->Search(request)->size(), 1u);
}

TEST_F(RetrieverTest, NeighbourIsTheNearestOfAnotherText) {
  const ChunkId cats = Put(OneChunkDocument("kb", "cats", "cats purr softly")).added[0];
  const auto neighbour = [&](ChunkId chunk) { return retriever_->Neighbour("kb", chunk); };
  EXPECT_EQ(*neighbour(cats), 0) << "alone";
  for (int i = 0; i < 20; ++i) {  // more copies than the first look takes
    Put(OneChunkDocument("kb", testing::Numbered("copy", i), "cats purr softly"));
  }
  EXPECT_EQ(*neighbour(cats), 0) << "copies do not count";
  const ChunkId dogs = Put(OneChunkDocument("kb", "dogs", "dogs bark loudly")).added[0];
  EXPECT_EQ(*neighbour(cats), dogs);
  const ChunkId kittens = Put(OneChunkDocument("kb", "kittens", "kittens purr softly")).added[0];
  EXPECT_EQ(*neighbour(cats), kittens);
  Reopen();
  EXPECT_EQ(*neighbour(cats), kittens);
  ASSERT_TRUE(retriever_->Delete("kittens").ok());
  EXPECT_EQ(*neighbour(cats), dogs);
  EXPECT_EQ(neighbour(kittens).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(retriever_->Neighbour("none", cats).status().code(), StatusCode::kNotFound);
}

TEST_F(RetrieverTest, SurvivesReopening) {
  Put(OneChunkDocument("kb", "a", "alpha beta"));
  Put(OneChunkDocument("kb", "b", "gamma delta"));
  Reopen();
  EXPECT_EQ(Texts("gamma", 1), Strings{"gamma delta"});
  EXPECT_EQ(retriever_->stats().chunks, 2);
  EXPECT_EQ(retriever_->stats().documents, 2);
}

TEST_F(RetrieverTest, ReplacedAndDeletedChunksAreGone) {
  Put(DocumentOf("kb", "a", {"old words here", "kept words here"}));
  Put(DocumentOf("kb", "a", {"kept words here", "new words here"}));
  const auto texts = Texts("old words", 10);
  EXPECT_EQ(std::set<std::string>(texts.begin(), texts.end()),
            (std::set<std::string>{"kept words here", "new words here"}));
  ASSERT_TRUE(retriever_->Delete("a").ok());
  EXPECT_TRUE(Texts("old words", 10).empty());
  EXPECT_EQ(retriever_->Delete("a").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(retriever_->stats().chunks, 0);
}

TEST_F(RetrieverTest, UnchangedDocumentsAreNotEmbeddedAgain) {
  Put(OneChunkDocument("kb", "a", "alpha"));
  const int embedded = embedder_.embedded;
  EXPECT_TRUE(Put(OneChunkDocument("kb", "a", "alpha")).unchanged);
  EXPECT_EQ(embedder_.embedded, embedded);
}

TEST_F(RetrieverTest, DuplicatesAreDroppedAndReplacedByOthers) {
  for (int i = 0; i < 60; ++i) {
    Put(OneChunkDocument(
        "kb", testing::Numbered("copy", i),
        i % 2 ? "the same text again and again" : "The same text, again AND again!"));
  }
  Put(OneChunkDocument("kb", "other", "one text of another kind"));
  const auto texts = Texts("the same text", 2);
  ASSERT_EQ(texts.size(), 2u) << "looks past 60 copies";
  EXPECT_EQ(texts[1], "one text of another kind");
}

TEST_F(RetrieverTest, Filters) {
  for (int i = 0; i < 40; ++i) {
    NewDocument document =
        OneChunkDocument("kb", testing::Numbered("d", i),
                         testing::Numbered("common word", i) + testing::Numbered(" number", i * 7));
    document.metadata = {{"parity", i % 2 ? "odd" : "even"}, {"lang", "en"}};
    Put(std::move(document));
  }
  EXPECT_EQ(Texts("common", 40, {{}, {{"parity", "odd"}}}).size(), 20u);
  EXPECT_EQ(Texts("common", 40, {{}, {{"parity", "odd"}, {"lang", "de"}}}).size(), 0u);
  EXPECT_EQ(Texts("common", 40, {{"d3", "d4", "none"}, {{"parity", "odd"}}}),
            Strings{"common word3 number21"});
  EXPECT_EQ(Texts("common", 40, {{"d5"}, {}}).size(), 1u);
}

TEST_F(RetrieverTest, Refusals) {
  const auto code = [&](const std::string& collection, const std::string& query, int32_t top_k) {
    return retriever_->Search({collection, query, top_k, -1.0f, {}}).status().code();
  };
  EXPECT_EQ(code("kb", "x", 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(code("kb", "x", kMaxTopK + 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(code("kb", " \n", 5), StatusCode::kInvalidArgument);
  EXPECT_EQ(code("none", "x", 5), StatusCode::kNotFound);
  EXPECT_EQ(code("kb", "x", kMaxTopK), StatusCode::kOk) << "an empty collection has no hits";
  EXPECT_EQ(retriever_->Put(OneChunkDocument("none", "a", "x")).status().code(),
            StatusCode::kNotFound);
}

TEST_F(RetrieverTest, CollectionOfAnotherEmbedderIsClosed) {
  Put(OneChunkDocument("kb", "a", "alpha"));
  embedder_.name = "others";
  Reopen();
  EXPECT_EQ(retriever_->Search({"kb", "alpha", 5, -1.0f, {}}).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(retriever_->Put(OneChunkDocument("kb", "b", "x")).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(*retriever_->DeleteCollection("kb"), 1) << "but it can be deleted";
  Collection collection;
  collection.name = "kb";
  EXPECT_TRUE(retriever_->EnsureCollection(collection).ok()) << "and made again";
}

TEST_F(RetrieverTest, FailedWriteChangesNothing) {
  Put(OneChunkDocument("kb", "a", "alpha beta"));
  store_.fail_writes_with = ResourceExhausted("disk full");
  EXPECT_FALSE(retriever_->Put(OneChunkDocument("kb", "a", "gamma")).ok());
  EXPECT_FALSE(retriever_->Delete("a").ok());
  EXPECT_FALSE(retriever_->DeleteCollection("kb").ok());
  EXPECT_EQ(Texts("alpha", 3), Strings{"alpha beta"});
}

// A corrupt record costs its own chunks, never the collection.
TEST_F(RetrieverTest, CorruptRecordsAreLeftOut) {
  Put(OneChunkDocument("kb", "a", "alpha beta"));
  Put(OneChunkDocument("kb", "b", "alpha gamma"));
  for (auto& [key, value] : store_.map) {
    if (key == "d/a") value[5] ^= 1;
  }
  Reopen();
  EXPECT_EQ(Texts("alpha", 5), Strings{"alpha gamma"});
  EXPECT_EQ(retriever_->stats().corrupt_records, 1);
  for (auto& [key, value] : store_.map) {
    if (key.starts_with("k/")) value.back() ^= 1;
  }
  EXPECT_TRUE(Texts("alpha", 5).empty());
  EXPECT_TRUE(retriever_->Delete("a").ok());
}

// Random documents: the order is that of the cosines over all chunks.
TEST_F(RetrieverTest, EqualsBruteForce) {
  std::mt19937 random(6);
  const auto words = [&](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += testing::Numbered("w", random() % 500) + " ";
    return text;
  };
  std::vector<std::pair<std::string, std::vector<float>>> all;
  for (int i = 0; i < 150; ++i) {
    const std::string text = words(12);
    Put(OneChunkDocument("kb", testing::Numbered("d", i), text));
    all.emplace_back(text, *embedder_.Embed(std::span(&text, 1)));
  }
  for (int round = 0; round < 20; ++round) {
    const std::string query = words(5);
    const auto vector = *embedder_.Embed(std::span(&query, 1));
    const auto hits = *retriever_->Search({"kb", query, 10, -1.0f, {}});
    std::vector<float> scores;
    for (const auto& [text, other] : all) {
      double score = 0;
      for (size_t i = 0; i < vector.size(); ++i) score += double{vector[i]} * double{other[i]};
      scores.push_back(static_cast<float>(score));
    }
    std::sort(scores.rbegin(), scores.rend());
    ASSERT_EQ(hits.size(), 10u);
    // 64 products of fp32: error below 64 * 2^-24.
    for (size_t i = 0; i < hits.size(); ++i) EXPECT_NEAR(hits[i].score, scores[i], 4e-6);
  }
}

TEST_F(RetrieverTest, SearchesBesideWriters) {
  for (int i = 0; i < 20; ++i) Put(OneChunkDocument("kb", testing::Numbered("s", i), "stable"));
  std::atomic<bool> stop = false;
  std::thread reader([&] {
    while (!stop) {
      const auto hits = retriever_->Search({"kb", "version stable", 5, -1.0f, {}});
      ASSERT_TRUE(hits.ok());
    }
  });
  for (int i = 0; i < 150; ++i) {
    Put(OneChunkDocument("kb", testing::Numbered("d", i % 5), testing::Numbered("version ", i)));
    if (i % 7 == 0) (void)retriever_->Delete(testing::Numbered("d", i % 5)).ok();
  }
  stop = true;
  reader.join();
}

TEST(NearDuplicates, HandCases) {
  NearDuplicates seen(0.9);
  EXPECT_FALSE(seen.SeenOrAdd("a b c d"));
  EXPECT_TRUE(seen.SeenOrAdd("A b, c - D!"));
  EXPECT_FALSE(seen.SeenOrAdd("a b c e")) << "2 of 4 pairs shared";
  EXPECT_FALSE(seen.SeenOrAdd("1"));
  EXPECT_FALSE(seen.SeenOrAdd("2")) << "tables of other numbers are not the same";
  NearDuplicates exact(1.1);
  EXPECT_FALSE(exact.SeenOrAdd("a b"));
  EXPECT_FALSE(exact.SeenOrAdd("a c"));
  EXPECT_TRUE(exact.SeenOrAdd("a b"));
}

}  // namespace
}  // namespace kvasir
