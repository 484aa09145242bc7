// The primer that a new collection takes from its own documents.
#include "service/primer_choice.h"

#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

TEST(TypicalPassages, NearestToTheMeanFirstAndEveryDocumentOnceBeforeAnyTwice) {
  const std::vector<PrimerCandidate> candidates = {{0, "odd", {0, 1}},
                                                   {0, "plain", {1, 0}},
                                                   {1, "plain too", {0.8F, 0.6F}},
                                                   {0, "same", {1, 0}}};
  // The mean points to (2.8, 1.6): document 1's is nearest, then document 0's first plain one.
  EXPECT_EQ(TypicalPassages(candidates, 9), (std::vector<size_t>{2, 1, 3, 0}));
  EXPECT_EQ(TypicalPassages(candidates, 1), (std::vector<size_t>{2}));
  EXPECT_TRUE(TypicalPassages({}, 4).empty());
}

class PrimerChoiceTest : public PipelineTest {
 protected:
  std::vector<IngestInput> Inputs() {
    std::vector<IngestInput> inputs(3);
    const char* texts[] = {"zzz qqq xxx zzz qqq xxx", "the cat and the hat", "the cat ate the rat"};
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i].id = std::to_string(i);
      inputs[i].bytes = texts[i];
      inputs[i].format = DocumentFormat::kText;
    }
    return inputs;
  }
};

TEST_F(PrimerChoiceTest, TakesTypicalPassagesOfTheDocuments) {
  const auto text = service_->ingest.ChoosePrimer(Inputs());
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  EXPECT_LT(text->find("the cat"), text->find("zzz"));
  EXPECT_NE(text->find("\n\n"), std::string::npos);
  EXPECT_EQ(*text, *service_->ingest.ChoosePrimer(Inputs()));

  CollectionChoice choice;
  choice.primer = *text;
  const auto collection = service_->ingest.OpenCollection("kb", choice);
  ASSERT_TRUE(collection.ok()) << collection.status().ToString();
  EXPECT_NE(collection->primer, runtime_->configured_primer());
  EXPECT_EQ(service_->ingest.ChoosePrimer({}).status().code(), StatusCode::kInvalidArgument);
}

// Its text stands before everybody's chunks, as a neighbour's would.
TEST_F(PrimerChoiceTest, IsRefusedWhereRightsMayDiffer) {
  std::vector<IngestInput> inputs = Inputs();
  inputs[1].cache_salt = "mine";
  const Status salted = service_->ingest.ChoosePrimer(inputs).status();
  EXPECT_EQ(salted.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(salted.message().find("cache_salt"), std::string::npos);
  Stop();
  config_.server_api_keys = {"one", "two"};
  Start();
  EXPECT_EQ(service_->ingest.ChoosePrimer(Inputs()).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(PrimerChoiceTest, ServersTakeItFromTheDocumentThatMakesTheCollection) {
  const auto post = [&](const std::string& id, const std::string& text, const std::string& more) {
    return Call(*service_, "POST", "/v1/documents",
                R"({"collection":"kb","id":")" + id + R"(","text":")" + text + "\"" + more + "}");
  };
  EXPECT_EQ(post("a", "the cat and the hat", R"(,"choose_primer":true)").status, 200);
  const auto made = runtime_->documents().GetCollection("kb");
  ASSERT_TRUE(made.ok());
  const auto own = RenderPrimer(runtime_->chat_template(), "the cat and the hat", 256);
  EXPECT_EQ(made->primer, *own);
  // Later documents find the collection as it is.
  EXPECT_EQ(post("b", "a dog by the sea", R"(,"choose_primer":true)").status, 200);
  EXPECT_EQ(runtime_->documents().GetCollection("kb")->primer, *own);
  EXPECT_EQ(post("c", "x", R"(,"choose_primer":true,"primer":"y")").status, 400);
  EXPECT_EQ(post("c", "x", R"(,"choose_primer":"yes")").status, 400);
}

}  // namespace
}  // namespace kvasir
