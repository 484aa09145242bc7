// A step that fails is repeated one sequence at a time: the failure reaches the guilty alone.
#include "engine/step_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/engine/engine_harness.h"
#include "tests/engine/wrapped_backend.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::Ids;
using test::RunAll;
using test::RunOne;

constexpr int32_t kOutOfMemory = 77, kBroken = 78;

// Fails when it is asked to embed certain tokens.
class FaultyBackend final : public test::WrappedBackend {
 public:
  using WrappedBackend::WrappedBackend;

  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) override {
    const auto holds = [&](int32_t id) {
      return std::find(token_ids.begin(), token_ids.end(), id) != token_ids.end();
    };
    if (holds(kOutOfMemory)) throw std::bad_alloc();
    if (holds(kBroken)) throw std::runtime_error("device lost a wheel");
    WrappedBackend::Embed(table, token_ids, scale, out);
  }
};

test::BackendChoice Faulty() {
  return {"Faulty", [](int threads) {
            return std::make_shared<FaultyBackend>(test::BestCpu().create(threads));
          }};
}

TEST(StepRunner, AFailingSequenceFailsAlone) {
  const test::Loaded loaded = test::LoadTiny(Faulty(), {.tied = false});
  auto engine = test::MakeEngine(loaded, test::ExactOptions());
  const Ids prompt = {10, 11, 12, 13};
  const Answer expected = RunOne(*engine, Ask({Fresh(prompt)}, 5));
  const auto answers =
      RunAll(*engine, {Ask({Fresh(prompt)}, 5), Ask({Fresh({20, kOutOfMemory, 21})}, 5),
                       Ask({Fresh(prompt)}, 5), Ask({Fresh({kBroken})}, 5)});
  for (const size_t good : {0, 2}) {
    EXPECT_TRUE(answers[good].end.status.ok()) << answers[good].end.status.ToString();
    EXPECT_EQ(answers[good].tokens, expected.tokens);
    EXPECT_TRUE(test::SameBits(answers[good].logits[0], expected.logits[0]));
  }
  EXPECT_EQ(answers[1].end.status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(answers[3].end.status.code(), StatusCode::kInternal);
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
}

TEST(StepRunner, ASharedStepCapturesAsEachAlone) {
  const test::Loaded loaded = test::LoadTiny(Faulty(), {.tied = false});
  auto engine = test::MakeEngine(loaded, test::ExactOptions());
  const auto capture = [&](const Ids& tail) {
    Request request = Ask({Fresh({10, 11, 12}), Fresh(tail)}, 0);
    request.capture = std::make_shared<KvCapture>();
    return request;
  };
  const Request alone = capture({30, 31, 32, 33});
  RunOne(*engine, alone, false);
  // The failing one makes the step fall apart into parts, whose rows are numbered anew.
  const Request shared = capture({30, 31, 32, 33});
  const auto answers =
      RunAll(*engine, {capture({40, 41}), shared, Ask({Fresh({kBroken})}, 0)}, false);
  EXPECT_TRUE(answers[1].end.status.ok());
  EXPECT_TRUE(test::SameBits(alone.capture->k, shared.capture->k));
  EXPECT_TRUE(test::SameBits(alone.capture->v, shared.capture->v));
}

}  // namespace
}  // namespace kvasir
