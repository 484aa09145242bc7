// The engine on the emulated card with tokens drawn there and steps launched as graphs: its answers
// are those of an engine that draws on the host and queues every step kernel by kernel.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/engine/engine_harness.h"
#include "tests/kernels/cuda_emulation/device.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::RandomTokens;
using test::RunAll;

std::vector<Request> MixedRequests() {
  std::vector<Request> requests;
  const auto add = [&](const SamplingParams& sampling) -> Request& {
    const auto count = static_cast<int32_t>(requests.size());
    Request request = Ask({Fresh(RandomTokens(4 + 9 * count, uint64_t(count)))}, 6 + 2 * count);
    request.sampling = sampling;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
    return requests.back();
  };
  add({});
  add({.temperature = 1.0f, .seed = 3});
  add({.temperature = 0.9f, .top_p = 0.95f, .logprobs = 1});
  add({.temperature = 1.3f, .top_k = 20, .top_p = 0.9f, .seed = 5});
  add({.temperature = 0.7f, .presence_penalty = 1.0f, .seed = 6});
  return requests;
}

struct Way {
  bool graphs, on_device;
  int32_t drafts = 0;
};

std::vector<Answer> AnswersBy(const Way& way, bool want_logits) {
  const auto create = [&](int) {
    auto backend = CreateCudaBackend({.compute = CudaCompute::kF32, .graphs = way.graphs});
    KVASIR_CHECK(backend.ok());
    return std::shared_ptr<Backend>(std::move(*backend));
  };
  const test::Loaded loaded = test::LoadTiny({"Cuda", create}, {.layers = 2, .tied = false});
  EngineOptions options = test::ExactOptions(size_t{2} << 20);
  options.poison_blocks = false;  // takes the emulated card long
  options.draft_tokens = way.drafts;
  options.draw_on_device = way.on_device;
  auto engine = test::MakeEngine(loaded, options);
  return RunAll(*engine, MixedRequests(), want_logits);
}

void ExpectSame(const std::vector<Answer>& a, const std::vector<Answer>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].end.status.ok()) << i << ": " << a[i].end.status.ToString();
    EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
    ASSERT_EQ(a[i].logits.size(), b[i].logits.size()) << i;
    for (size_t row = 0; row < a[i].logits.size(); ++row) {
      EXPECT_TRUE(test::SameBits(a[i].logits[row], b[i].logits[row])) << i << ", " << row;
    }
  }
}

TEST(CudaDraw, TokensOfTheCardAreThoseOfTheHost) {
  ExpectSame(AnswersBy({.graphs = true, .on_device = true, .drafts = 2}, false),
             AnswersBy({.graphs = false, .on_device = false}, false));
}

TEST(CudaDraw, LogitsOfGraphsHaveTheBitsOfQueuedSteps) {
  const size_t before = emulation::CallsSoFar().graphs;
  const auto recorded = AnswersBy({.graphs = true, .on_device = true}, true);
  EXPECT_GT(emulation::CallsSoFar().graphs, before);
  ExpectSame(recorded, AnswersBy({.graphs = false, .on_device = true}, true));
}

}  // namespace
}  // namespace kvasir
