// The exactness gates on a real model with real text: SmolLM2-135M-Instruct, fp32 pool, the best
// CPU backend. Short contexts: the tiny models cover the shapes, this covers real weights.
//
// Tolerance: 30 layers, logits up to about 30, unit 6e-8: a few hundred units are 1e-3, the bound
// that the design sets.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::AllRows;
using test::Answer;
using test::Ask;
using test::CaptureChunk;
using test::Fresh;
using test::Ids;
using test::Join;
using test::LoadChunk;
using test::MaxDifference;
using test::Reused;
using test::RunAll;
using test::RunOne;
using test::SameBits;

constexpr float kTolerance = 1e-3f;
constexpr char kModel[] = "SmolLM2-135M-Instruct.Q4_1.gguf";

struct Real {
  test::Loaded loaded;
  Ids anchor, first, second, question;
};

Result<Real> LoadReal(const std::string& path, int threads) {
  Real real;
  real.loaded.backend = test::BestCpu().create(threads);
  KVASIR_ASSIGN_OR_RETURN(real.loaded.model, LoadGgufModel(path, *real.loaded.backend));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                          MakeTokenizer(real.loaded.model->vocabulary));
  KVASIR_ASSIGN_OR_RETURN(real.anchor,
                          tokenizer->Encode("You answer from the passages that you are given.\n"));
  KVASIR_ASSIGN_OR_RETURN(
      real.first,
      tokenizer->Encode("Passage: The river Aare rises in the Bernese Alps, passes through Bern "
                        "and joins the Rhine at Koblenz. It is 288 kilometres long.\n"));
  KVASIR_ASSIGN_OR_RETURN(
      real.second,
      tokenizer->Encode("Passage: The old town of Bern was built on a narrow hill which the "
                        "river surrounds on three sides. Its clock tower dates from 1218.\n"));
  KVASIR_ASSIGN_OR_RETURN(real.question,
                          tokenizer->Encode("Question: How long is the Aare?\nAnswer:"));
  return real;
}

class RealGates : public testing::Test {
 protected:
  void SetUp() override {
    const std::string path = test::ModelPath(kModel);
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "skipped: model " << kModel << " missing";
    auto real = LoadReal(path, 2);
    ASSERT_TRUE(real.ok()) << real.status().ToString();
    real_ = std::move(real).value();
    engine_ = test::MakeEngine(real_.loaded, test::ExactOptions(size_t{64} << 20));
  }

  std::vector<float> Logits(std::vector<SegmentPlan> segments) {
    const Answer answer = RunOne(*engine_, Ask(std::move(segments)));
    EXPECT_TRUE(answer.end.status.ok()) << answer.end.status.ToString();
    return answer.logits.empty() ? std::vector<float>() : answer.logits.front();
  }
  std::shared_ptr<const KvBlocks> Chunk(const Ids& behind, const Ids& chunk) {
    return LoadChunk(*engine_, *CaptureChunk(*engine_, behind, chunk));
  }
  void Report(const std::string& what, double value) {
    RecordProperty(what, std::to_string(value));
    std::cout << "  " << what << " " << value << "\n";
  }

  Real real_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(RealGates, G3G4RepairedAndSamePlaceEqualFullPrefill) {
  const auto& [loaded, anchor, first, second, question] = real_;
  const auto full = Logits({Fresh(Join({anchor, first, second, question}))});
  const auto a = Chunk(anchor, first), b = Chunk(anchor, second);
  const auto repaired = Logits({Fresh(anchor), Reused(first, a, AllRows(a->tokens())),
                                Reused(second, b, AllRows(b->tokens())), Fresh(question)});
  const auto behind_first = Chunk(Join({anchor, first}), second);
  const auto same_place =
      Logits({Fresh(anchor), Reused(first, a), Reused(second, behind_first), Fresh(question)});
  const auto concat = Logits({Fresh(anchor), Reused(first, a), Reused(second, b), Fresh(question)});
  Report("G3 largest logit difference", double{MaxDifference(full, repaired)});
  Report("G4 largest logit difference", double{MaxDifference(full, same_place)});
  Report("concat largest logit difference", double{MaxDifference(full, concat)});
  Report("concat KL", test::KlDivergence(full, concat));
  EXPECT_LE(MaxDifference(full, repaired), kTolerance);
  EXPECT_LE(MaxDifference(full, same_place), kTolerance);
  EXPECT_GT(MaxDifference(full, concat), 10 * kTolerance) << "the gate would see nothing";
}

TEST_F(RealGates, G7MixedBatchEqualsEachAlone) {
  const auto& [loaded, anchor, first, second, question] = real_;
  const auto a = Chunk(anchor, first), b = Chunk(anchor, second);
  const std::vector<Request> requests = {
      Ask({Fresh(Join({anchor, first, question}))}, 8),
      Ask({Fresh(anchor), Reused(second, b), Reused(first, a), Fresh(question)}, 8),
      Ask({Fresh(anchor), Reused(first, a, {0, 1, 2, 3}), Fresh(question)}, 8),
      Ask({Fresh(question)}, 12)};
  std::vector<Answer> alone;
  for (const Request& request : requests) alone.push_back(RunOne(*engine_, request));
  const auto mixed = RunAll(*engine_, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(mixed[i].end.status.ok());
    EXPECT_EQ(alone[i].tokens, mixed[i].tokens);
    ASSERT_EQ(alone[i].logits.size(), mixed[i].logits.size());
    for (size_t step = 0; step < alone[i].logits.size(); ++step) {
      EXPECT_TRUE(SameBits(alone[i].logits[step], mixed[i].logits[step])) << i << " " << step;
    }
  }
}

TEST_F(RealGates, G8SlicesAndThreadsChangeNoBit) {
  const auto& [loaded, anchor, first, second, question] = real_;
  const Ids prompt = Join({anchor, first, second, question});
  const auto expected = Logits({Fresh(prompt)});
  EngineOptions options = test::ExactOptions(size_t{64} << 20);
  options.step_rows = 19;
  engine_ = test::MakeEngine(loaded, options);
  EXPECT_TRUE(SameBits(expected, Logits({Fresh(prompt)})));
  auto single = LoadReal(test::ModelPath(kModel), 1);
  ASSERT_TRUE(single.ok());
  engine_ = test::MakeEngine(single.value().loaded, options);
  const auto one_thread = Logits({Fresh(prompt)});
  EXPECT_TRUE(SameBits(expected, one_thread))
      << "KL of the noise floor: " << test::KlDivergence(expected, one_thread);
}

}  // namespace
}  // namespace kvasir
