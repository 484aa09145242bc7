// One question through the item runner: what is compared with full prefill, and behind which primer
// its chunks are encoded.
#include <gtest/gtest.h>

#include "service/eval/item_runner.h"
#include "tests/service/pipeline_fixture.h"

namespace kvasir {
namespace {

class EvalRunnerTest : public PipelineTest {
 protected:
  static EvalQuestion Asked(bool with_gold) {
    EvalQuestion question;
    question.question = "where is the cat?";
    question.documents = {{"", "the cat is in the field"}, {"", "the sun is up"}};
    question.has_documents = true;
    if (with_gold) question.answers = {"in the field"};
    return question;
  }
  struct Measured {
    ItemResult exact, floor;
  };
  Measured Measure(bool with_gold) {
    const EvalQuestion question = Asked(with_gold);
    ChunkLab lab(*runtime_);
    ItemRunnerOptions options;
    options.steps = 4;
    ItemRunner runner(*runtime_, lab, options);
    Measured measured;
    auto prompt = MakeEvalPrompt(*runtime_, question, {});
    EXPECT_TRUE(prompt.ok()) << prompt.status().ToString();
    if (!prompt.ok()) return measured;
    auto exact = runner.RunExact(*prompt, question.answers);
    EXPECT_TRUE(exact.ok()) << exact.status().ToString();
    if (exact.ok()) measured.exact = *exact;
    auto floor = runner.RunNoiseFloor(*prompt);
    EXPECT_TRUE(floor.ok()) << floor.status().ToString();
    if (floor.ok()) measured.floor = *floor;
    return measured;
  }
};

// The gold answer is fed before the free one, in the same pass: neither may change the other.
TEST_F(EvalRunnerTest, FullPrefillsAnswerIsTheSameBesideAGoldAnswer) {
  const Measured with = Measure(true), without = Measure(false);
  EXPECT_EQ(with.exact.text, without.exact.text);
  EXPECT_EQ(with.exact.kl.size(), without.exact.kl.size());
  ASSERT_EQ(with.floor.kl.size(), without.floor.kl.size());
  for (const double kl : with.floor.kl) EXPECT_LT(kl, 1e-6);  // the same sums in another order
  EXPECT_FALSE(without.exact.gold_loglik);
  ASSERT_TRUE(with.exact.gold_loglik && with.floor.gold_loglik);
  EXPECT_LT(*with.exact.gold_loglik, 0);
  EXPECT_NEAR(*with.exact.gold_loglik, *with.floor.gold_loglik, 1e-3);
}

TEST_F(EvalRunnerTest, SearchedChunksStandBehindTheirCollectionsOwnPrimer) {
  CollectionChoice choice;
  choice.primer = "cats and dogs live in the field.";
  const auto collection = service_->ingest.OpenCollection("kb", choice);
  ASSERT_TRUE(collection.ok()) << collection.status().ToString();
  ASSERT_FALSE(collection->primer.empty());
  EXPECT_NE(collection->primer, runtime_->configured_primer());
  EvalQuestion searched;
  searched.question = "where is the cat?";
  EXPECT_EQ(FixedPrimerOf(*runtime_, searched, "kb"), collection->primer);
  EXPECT_EQ(FixedPrimerOf(*runtime_, searched, "none"), runtime_->configured_primer());
  EXPECT_EQ(FixedPrimerOf(*runtime_, Asked(false), "kb"), runtime_->configured_primer());
}

}  // namespace
}  // namespace kvasir
