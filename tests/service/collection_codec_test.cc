// A collection stores KV in the codec that was configured when it was made, whatever is configured
// later.
#include "service/encoding.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

class CollectionCodecTest : public PipelineTest {
 protected:
  void StartWith(const std::string& codec) {
    Stop();
    config_.cache_codec = codec;
    Start();
  }
  void Ingest(const std::string& collection, const std::string& text) {
    const std::string file = WriteFile(collection + ".txt", text);
    const IngestReport report = service_->ingest.IngestFiles(collection, {file}, true, nullptr);
    ASSERT_TRUE(report.failures.empty()) << report.failures[0].message;
  }
  CacheReport AskCollection(const std::string& collection) {
    RagRequest request = Question({}, CacheMode::kFused, "concat");
    request.collection = collection;
    return Ask(request);
  }
};

const char kText[] = "the cat sat on the mat and a dog ran by the sea";

TEST_F(CollectionCodecTest, IsThatOfItsCreation) {
  StartWith("int4");
  Ingest("packed", kText);
  EXPECT_EQ(runtime_->documents().GetCollection("packed")->codec, "int4");
  StartWith("int8");
  EXPECT_EQ(StatusesOf(AskCollection("packed")), Statuses{"hit_disk"});
  Ingest("packed", "more text, in the codec of the collection");
  EXPECT_EQ(runtime_->documents().GetCollection("packed")->codec, "int4");
  EXPECT_EQ(EncodingOf(*runtime_->documents().GetCollection("packed"))->codec, KvCodec::kInt4);
  Ingest("plain", kText);
  EXPECT_EQ(runtime_->documents().GetCollection("plain")->codec, "int8");
  EXPECT_EQ(StatusesOf(AskCollection("plain")), Statuses{"hit_memory"});
}

TEST_F(CollectionCodecTest, ACodecThatIsNotKnownIsNamed) {
  Collection collection;
  collection.name = "later";
  collection.codec = "int2";
  const auto encoding = EncodingOf(collection);
  EXPECT_EQ(encoding.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(encoding.status().message().find("'int2'"), std::string::npos);
  collection.codec = "";
  EXPECT_EQ(EncodingOf(collection)->codec, kConfiguredCodec) << "records of older programs";
}

}  // namespace
}  // namespace kvasir
