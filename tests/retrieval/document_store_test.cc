#include "retrieval/document_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "retrieval/record.h"
#include "test_support.h"

namespace kvasir {
namespace {

using testing::DocumentOf;
using testing::MapStore;

constexpr int32_t kWidth = 4;

Collection Named(const std::string& name) {
  return {name, "model-digest", "embedder-1", kWidth, "You are helpful.", 0};
}

// A document with vectors.
NewDocument Doc(const std::string& id, const std::vector<std::string>& texts,
                const std::string& collection = "kb") {
  NewDocument document = DocumentOf(collection, id, texts);
  float value = 0;
  for (NewChunk& chunk : document.chunks) chunk.vector = {value++, 1, 2, 3};
  return document;
}

class DocumentStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Reopen();
    ASSERT_TRUE(documents_->EnsureCollection(Named("kb")).ok());
  }
  void Reopen() {
    auto opened = DocumentStore::Open(store_);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    documents_ = std::move(opened).value();
  }
  PutOutcome Put(NewDocument document) {
    auto put = documents_->Put(std::move(document));
    EXPECT_TRUE(put.ok()) << put.status().ToString();
    return put.ok() ? *put : PutOutcome{};
  }
  StatusCode PutCode(NewDocument document) {
    return documents_->Put(std::move(document)).status().code();
  }
  std::vector<ChunkId> VectorIds(const std::string& collection = "kb") {
    std::vector<ChunkId> ids;
    const auto visit = [&](ChunkId id, std::span<const float>) {
      ids.push_back(id);
      return true;
    };
    EXPECT_TRUE(documents_->ForEachVector(collection, visit, &corrupt_).ok());
    return ids;
  }

  MapStore store_;
  std::unique_ptr<DocumentStore> documents_;
  int64_t corrupt_ = 0;
};

TEST_F(DocumentStoreTest, HandCase) {
  NewDocument source = Doc("a", {"first", "second"});
  source.metadata = {{"lang", "en"}, {"empty", ""}};
  const PutOutcome put = Put(source);
  EXPECT_EQ(put.id, "a");
  EXPECT_EQ(put.version, 1);
  EXPECT_FALSE(put.unchanged);
  ASSERT_EQ(put.added.size(), 2u);
  EXPECT_TRUE(put.removed.empty());
  Reopen();
  const auto found = documents_->Get("a");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->title, "Title of a");
  EXPECT_EQ(found->metadata, source.metadata);
  EXPECT_EQ(found->chunks, put.added);
  EXPECT_EQ(found->tokens, 11);
  EXPECT_GT(found->created_ms, 1600000000000);
  const auto chunks = documents_->GetChunks("a");
  ASSERT_TRUE(chunks.ok());
  EXPECT_EQ((*chunks)[1].text, "second");
  EXPECT_EQ((*chunks)[1].ordinal, 1);
  EXPECT_EQ((*chunks)[1].token_ids, (std::vector<int32_t>{'s', 'e', 'c', 'o', 'n', 'd'}));
  EXPECT_EQ(VectorIds(), put.added);
}

TEST_F(DocumentStoreTest, NewVersionReplacesAndUnchangedIsSkipped) {
  const PutOutcome first = Put(Doc("a", {"x", "y"}));
  const int writes = store_.writes;
  const PutOutcome again = Put(Doc("a", {"x", "y"}));
  EXPECT_TRUE(again.unchanged);
  EXPECT_EQ(again.version, 1);
  EXPECT_EQ(store_.writes, writes);
  EXPECT_TRUE(*documents_->IsUnchanged("a", "x|y|"));
  EXPECT_FALSE(*documents_->IsUnchanged("a", "x|"));
  EXPECT_FALSE(*documents_->IsUnchanged("b", "x|y|"));
  EXPECT_FALSE(*documents_->IsUnchanged("a", "")) << "no digest says nothing";

  const PutOutcome second = Put(Doc("a", {"z"}));
  EXPECT_EQ(store_.writes, writes + 1) << "one write switches the version";
  EXPECT_EQ(second.version, 2);
  EXPECT_EQ(second.removed, first.added);
  EXPECT_EQ(VectorIds(), second.added);
  EXPECT_EQ(documents_->GetChunk(first.added[0]).status().code(), StatusCode::kNotFound);
  EXPECT_GT(second.added[0], first.added[1]) << "ids are never used twice";
}

TEST_F(DocumentStoreTest, DeleteLeavesNothing) {
  const size_t before = store_.map.size();
  const PutOutcome put = Put(Doc("a", {"x", "y"}));
  EXPECT_EQ(*documents_->Delete("a"), put.added);
  EXPECT_EQ(store_.map.size(), before + 1) << "the chunk counter stays";
  EXPECT_EQ(documents_->Get("a").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(documents_->Delete("a").status().code(), StatusCode::kNotFound);
  Reopen();
  EXPECT_GT(Put(Doc("a", {"x"})).added[0], put.added[1]);
}

TEST_F(DocumentStoreTest, CollectionsAreCheckedAndDeletedWhole) {
  EXPECT_TRUE(documents_->EnsureCollection(Named("kb")).ok()) << "the same again";
  Collection other = Named("kb");
  other.system_text = "Other.";
  const auto differs = documents_->EnsureCollection(other);
  EXPECT_EQ(differs.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(differs.status().message().find("system text"), std::string::npos);
  for (const char* name : {"", "a b", "a/b", "\xC3\xA9"}) {
    EXPECT_FALSE(documents_->EnsureCollection(Named(name)).ok()) << name;
  }
  ASSERT_TRUE(documents_->EnsureCollection(Named("kb2")).ok());
  Put(Doc("a", {"x"}));
  Put(Doc("b", {"x", "y"}));
  Put(Doc("c", {"x"}, "kb2"));
  EXPECT_EQ(PutCode(Doc("c", {"z"}, "kb")), StatusCode::kAlreadyExists);
  EXPECT_EQ(documents_->ListCollections()->size(), 2u);
  EXPECT_EQ(*documents_->DeleteCollection("kb"), 2);
  EXPECT_EQ(documents_->DeleteCollection("kb").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(VectorIds("kb").empty());
  EXPECT_EQ(VectorIds("kb2").size(), 1u) << "a name that begins alike is another collection";
  EXPECT_EQ(store_.map.size(), 6u) << "counter, collection, document, entry, chunk, vector";
}

TEST_F(DocumentStoreTest, ACollectionKeepsConditionAndPrimer) {
  Collection made = Named("primed");
  made.ingestion = "fixed";
  made.primer = {5, 6, 7};
  ASSERT_TRUE(documents_->EnsureCollection(made).ok());
  Reopen();
  const auto found = documents_->GetCollection("primed");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->ingestion, "fixed");
  EXPECT_EQ(found->primer, made.primer);
  const auto message = [&](const Collection& wanted) {
    return documents_->EnsureCollection(wanted).status().message();
  };
  Collection other = made;
  other.ingestion = "own";
  EXPECT_NE(message(other).find("ingestion condition ('fixed', not 'own')"), std::string::npos);
  other = made;
  other.primer = {5, 6};
  EXPECT_NE(message(other).find("another primer"), std::string::npos);
}

TEST_F(DocumentStoreTest, ACollectionKeepsItsCodec) {
  Collection made = Named("packed");
  made.codec = "int4";
  ASSERT_TRUE(documents_->EnsureCollection(made).ok());
  Reopen();
  EXPECT_EQ(documents_->GetCollection("packed")->codec, "int4");
  EXPECT_EQ(documents_->GetCollection("kb")->codec, "");
  Collection other = made;
  other.codec = "int8";
  EXPECT_NE(documents_->EnsureCollection(other).status().message().find(
                "another KV codec ('int4', not 'int8')"),
            std::string::npos);
}

// What version 1 of the program wrote, byte by byte.
TEST_F(DocumentStoreTest, ACollectionOfVersion1HasTheAnchor) {
  RecordWriter now(RecordKind::kCollection);
  now.Text("old");
  now.Text("model-digest");
  now.Text("embedder-1");
  now.Int(kWidth);
  now.Text("You are helpful.");
  now.Int(1700000000000);
  std::string record = now.Finish();
  record[1] = 1;  // version 2 ended with condition and primer, 3 ends with the codec
  record.resize(record.size() - sizeof(uint64_t));
  const uint64_t checksum = RecordChecksum(record);
  record.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  store_.map["c/old"] = record;
  const auto found = documents_->GetCollection("old");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->ingestion, "anchor");
  EXPECT_TRUE(found->primer.empty());
  EXPECT_EQ(found->codec, "");
  EXPECT_EQ(found->system_text, "You are helpful.");
  EXPECT_TRUE(documents_->EnsureCollection(Named("old")).ok());
}

TEST_F(DocumentStoreTest, ListsPages) {
  std::set<std::string> ids;
  for (int i = 0; i < 25; ++i) {
    NewDocument document = Doc("", {testing::Numbered("text ", i)});
    ids.insert(Put(std::move(document)).id);
  }
  EXPECT_EQ(ids.size(), 25u) << "made ids are unique";
  std::vector<std::string> listed;
  std::string after;
  do {
    const auto page = documents_->List("kb", after, 10);
    ASSERT_TRUE(page.ok());
    for (const Document& document : page->documents) listed.push_back(document.id);
    after = page->next_after;
  } while (!after.empty());
  EXPECT_EQ(listed, std::vector<std::string>(ids.begin(), ids.end()));
  EXPECT_FALSE(documents_->List("kb", "", 0).ok());
  EXPECT_EQ(documents_->List("none", "", 5).status().code(), StatusCode::kNotFound);
}

TEST_F(DocumentStoreTest, RefusesBadDocuments) {
  EXPECT_EQ(PutCode(Doc("a", {"x"}, "none")), StatusCode::kNotFound);
  EXPECT_EQ(PutCode(Doc("a\nb", {"x"})), StatusCode::kInvalidArgument);
  EXPECT_EQ(PutCode(Doc(std::string(257, 'a'), {"x"})), StatusCode::kInvalidArgument);
  EXPECT_EQ(PutCode(Doc("a", {})), StatusCode::kInvalidArgument);
  EXPECT_EQ(PutCode(Doc("a", {"\xFF"})), StatusCode::kInvalidArgument);
  NewDocument document = Doc("a", {"x"});
  document.chunks[0].vector.pop_back();
  EXPECT_EQ(PutCode(document), StatusCode::kInvalidArgument);
  document = Doc("a", {"x"});
  document.metadata["k"] = std::string(10000, 'v');
  EXPECT_EQ(PutCode(document), StatusCode::kInvalidArgument);
}

TEST_F(DocumentStoreTest, FailedWriteLeavesTheOldVersion) {
  const PutOutcome first = Put(Doc("a", {"x"}));
  store_.fail_writes_with = ResourceExhausted("disk full");
  EXPECT_EQ(PutCode(Doc("a", {"y"})), StatusCode::kResourceExhausted);
  EXPECT_EQ(documents_->Delete("a").status().code(), StatusCode::kResourceExhausted);
  store_.fail_writes_with = Status::Ok();
  EXPECT_EQ(documents_->GetChunks("a")->at(0).text, "x");
  EXPECT_EQ(VectorIds(), first.added);
}

// Damage to any record is a typed error or left out and counted, and the document can be replaced.
TEST_F(DocumentStoreTest, DamagedRecords) {
  Put(Doc("a", {"x", "y"}));
  const auto good = store_.map;
  std::mt19937 random(4);
  for (const auto& [key, value] : good) {
    for (int round = 0; round < 4 && !value.empty(); ++round) {
      store_.map = good;
      std::string& bytes = store_.map[key];
      if (round == 0) bytes.resize(random() % bytes.size());
      if (round > 0) bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
      Reopen();
      const auto document = documents_->Get("a");
      const auto chunks = documents_->GetChunks("a");
      corrupt_ = 0;
      const size_t vectors = VectorIds().size();
      EXPECT_EQ(vectors + static_cast<size_t>(corrupt_), 2u);
      EXPECT_TRUE(document.ok() || document.status().code() == StatusCode::kDataLoss);
      EXPECT_TRUE(chunks.ok() ? chunks->at(1).text == "y"
                              : chunks.status().code() == StatusCode::kDataLoss);
      if (key.starts_with("d/")) {
        EXPECT_EQ(documents_->List("kb", "", 5)->corrupt, std::vector<std::string>{"a"});
      }
      if (key.starts_with("c/")) continue;  // the collection itself
      const PutOutcome healed = Put(Doc("a", {"new"}));
      EXPECT_EQ(documents_->GetChunks("a")->at(0).text, "new");
      EXPECT_EQ(VectorIds(), healed.added) << key;
      EXPECT_TRUE(documents_->Delete("a").ok());
    }
  }
}

TEST_F(DocumentStoreTest, SwappedRecordsAreForeign) {
  const PutOutcome put = Put(Doc("a", {"x", "y"}));
  Put(Doc("b", {"z"}));
  std::swap(store_.map["d/a"], store_.map["d/b"]);
  EXPECT_EQ(documents_->Get("a").status().code(), StatusCode::kDataLoss);
  std::vector<std::string> chunk_keys;
  for (const auto& [key, value] : store_.map) {
    if (key.starts_with("k/") || key.starts_with("v/")) chunk_keys.push_back(key);
  }
  ASSERT_EQ(chunk_keys.size(), 6u);
  std::swap(store_.map[chunk_keys[0]], store_.map[chunk_keys[1]]);
  std::swap(store_.map[chunk_keys[3]], store_.map[chunk_keys[4]]);
  EXPECT_EQ(documents_->GetChunk(put.added[0]).status().code(), StatusCode::kDataLoss);
  VectorIds();
  EXPECT_EQ(corrupt_, 2);
}

TEST_F(DocumentStoreTest, LostCounterIsWorkedOutAgain) {
  const PutOutcome put = Put(Doc("a", {"x", "y"}));
  store_.map.erase("n/chunk");
  Reopen();
  EXPECT_GT(Put(Doc("b", {"z"})).added[0], put.added[1]);
}

TEST_F(DocumentStoreTest, OwnPrimersAreTheChunksBefore) {
  NewDocument document = Doc("a", {"x", "y", "z"});
  for (NewChunk& chunk : document.chunks) chunk.behind_previous = true;
  const PutOutcome put = Put(document);
  Reopen();
  const auto chunks = documents_->GetChunks("a");
  ASSERT_TRUE(chunks.ok());
  EXPECT_EQ((*chunks)[0].primer, 0);
  EXPECT_EQ((*chunks)[1].primer, put.added[0]);
  EXPECT_EQ((*chunks)[2].primer, put.added[1]);
  EXPECT_TRUE(documents_->ChunksBehind(put.added[0])->empty()) << "they go together";
}

TEST_F(DocumentStoreTest, ChunksBehindOthersAreFound) {
  const size_t before = store_.map.size();
  const ChunkId x = Put(Doc("a", {"x"})).added[0], y = Put(Doc("b", {"y"})).added[0];
  const ChunkId z = Put(Doc("c", {"z"})).added[0];
  const auto behind = [&](ChunkId primer) {
    const auto chunks = documents_->ChunksBehind(primer);
    std::vector<ChunkId> ids;
    for (const Chunk& chunk : *chunks) ids.push_back(chunk.id);
    return ids;
  };
  using Ids = std::vector<ChunkId>;
  ASSERT_TRUE(documents_->SetPrimers(std::vector<PrimerChoice>{{y, x}, {z, x}, {999, x}}).ok());
  Reopen();
  EXPECT_EQ(behind(x), (Ids{y, z}));
  EXPECT_EQ(documents_->GetChunk(y)->primer, x);
  EXPECT_EQ(documents_->GetChunk(y)->text, "y") << "all else is as it was";
  ASSERT_TRUE(documents_->SetPrimers(std::vector<PrimerChoice>{{z, y}}).ok());
  EXPECT_EQ(behind(x), Ids{y});
  EXPECT_EQ(behind(y), Ids{z});
  ASSERT_TRUE(documents_->SetPrimers(std::vector<PrimerChoice>{{z, 999}}).ok());
  EXPECT_EQ(documents_->GetChunk(z)->primer, 0) << "that primer is not there";
  EXPECT_TRUE(behind(y).empty());

  EXPECT_TRUE(documents_->ChunksBehindNothing()->empty());
  ASSERT_TRUE(documents_->Delete("a").ok());
  EXPECT_EQ(behind(x), Ids{y}) << "still known";
  ASSERT_EQ(documents_->ChunksBehindNothing()->size(), 1u);
  EXPECT_EQ(documents_->ChunksBehindNothing()->at(0).id, y);
  ASSERT_TRUE(documents_->SetPrimers(std::vector<PrimerChoice>{{y, z}}).ok());
  EXPECT_TRUE(documents_->ChunksBehindNothing()->empty());
  for (const char* id : {"b", "c"}) ASSERT_TRUE(documents_->Delete(id).ok());
  EXPECT_EQ(store_.map.size(), before + 1) << "the chunk counter stays";
}

TEST_F(DocumentStoreTest, AFailedChoiceChangesNothing) {
  const ChunkId x = Put(Doc("a", {"x"})).added[0], y = Put(Doc("b", {"y"})).added[0];
  store_.fail_writes_with = ResourceExhausted("disk full");
  EXPECT_FALSE(documents_->SetPrimers(std::vector<PrimerChoice>{{y, x}}).ok());
  store_.fail_writes_with = Status::Ok();
  EXPECT_EQ(documents_->GetChunk(y)->primer, 0);
  EXPECT_TRUE(documents_->ChunksBehind(x)->empty());
}

// What version 1 of the program wrote: a chunk without a primer.
TEST_F(DocumentStoreTest, AChunkOfVersion1HasNoPrimer) {
  const ChunkId x = Put(Doc("a", {"x"})).added[0];
  for (auto& [key, value] : store_.map) {
    if (!key.starts_with("k/")) continue;
    value.resize(value.size() - 2 * sizeof(uint64_t));  // checksum and primer
    value[1] = 1;
    const uint64_t checksum = RecordChecksum(value);
    value.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  }
  const auto chunk = documents_->GetChunk(x);
  ASSERT_TRUE(chunk.ok()) << chunk.status().ToString();
  EXPECT_EQ(chunk->text, "x");
  EXPECT_EQ(chunk->primer, 0);
}

// Random changes against a plain map.
TEST_F(DocumentStoreTest, EqualsAMapUnderRandomChanges) {
  std::mt19937 random(8);
  std::map<std::string, std::vector<std::string>> expected;
  std::set<ChunkId> ever;
  for (int step = 0; step < 400; ++step) {
    const std::string id = testing::Numbered("d", random() % 12);
    if (random() % 4 == 0) {
      EXPECT_EQ(documents_->Delete(id).ok(), expected.erase(id) > 0);
    } else {
      std::vector<std::string> texts(1 + random() % 3);
      for (std::string& text : texts) text = testing::Numbered("t", random() % 5);
      const PutOutcome put = Put(Doc(id, texts));
      EXPECT_EQ(put.unchanged, expected.contains(id) && expected[id] == texts);
      expected[id] = texts;
      for (const ChunkId chunk : put.added) EXPECT_TRUE(ever.insert(chunk).second);
    }
    if (step % 50 == 0) Reopen();
  }
  size_t chunks = 0;
  for (const auto& [id, texts] : expected) {
    const auto found = documents_->GetChunks(id);
    ASSERT_TRUE(found.ok());
    ASSERT_EQ(found->size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) EXPECT_EQ((*found)[i].text, texts[i]);
    chunks += texts.size();
  }
  EXPECT_EQ(VectorIds().size(), chunks) << "nothing is left over";
  EXPECT_EQ(documents_->List("kb", "", 100)->documents.size(), expected.size());
}

}  // namespace
}  // namespace kvasir
