// The engine on the emulated card: greedy answers beside those of the CPU, over KV that is
// computed, loaded and read back; and what it does when the card is lost.
//
// The emulation's device addresses are not mapped, so an engine that took device memory for its own
// would not live to answer.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/engine/engine_harness.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"
#include "tests/kernels/cuda_emulation/platform.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::CaptureChunk;
using test::Fresh;
using test::Ids;
using test::LoadChunk;
using test::RandomTokens;
using test::Reused;
using test::RunAll;
using test::RunOne;

// Of how many prompts so many tokens are compared.
struct Sample {
  int32_t prompts, tokens;
};

test::BackendChoice Cuda(CudaCompute compute) {
  return {"Cuda", [compute](int) {
            auto backend = CreateCudaBackend({.compute = compute});
            KVASIR_CHECK(backend.ok());
            return std::shared_ptr<Backend>(std::move(*backend));
          }};
}

test::TinyModelOptions Model(int32_t head_dim) {
  test::TinyModelOptions options;
  options.tied = false;  // with tied embeddings a random model only repeats its last token
  options.head_dim = head_dim;
  options.layers = 2;
  return options;
}

// With logits tokens are drawn on the host, without them where the backend can.
std::vector<Answer> Greedy(const test::Loaded& loaded, DType kv_dtype, const Sample& sample,
                           bool with_logits) {
  EngineOptions options = test::ExactOptions(size_t{8} << 20);
  options.kv_dtype = kv_dtype;
  options.poison_blocks = false;  // takes the emulated card long
  options.draft_tokens = 0;
  auto engine = test::MakeEngine(loaded, options);
  std::vector<Request> requests;
  for (int32_t i = 0; i < sample.prompts; ++i) {
    const Ids prompt = RandomTokens(9 + i, static_cast<uint64_t>(100 + i));
    requests.push_back(Ask({Fresh(prompt)}, sample.tokens));
  }
  return RunAll(*engine, std::move(requests), with_logits);
}

// Where two answers part, by how much `want` prefers its own token there, in logits; -1: nowhere.
float GapWhereTheyPart(const Answer& want, const Answer& got) {
  for (size_t i = 0; i < want.tokens.size() && i < got.tokens.size(); ++i) {
    if (want.tokens[i] == got.tokens[i]) continue;
    const std::vector<float>& logits = want.logits[i];
    return logits[size_t(want.tokens[i])] - logits[size_t(got.tokens[i])];
  }
  return -1;
}

// At least so many answers are equal, and those that part do so at a near tie (in logits).
void ExpectSameText(const std::vector<Answer>& want, const std::vector<Answer>& got, float near_tie,
                    size_t least) {
  size_t same = 0;
  float widest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_TRUE(got[i].end.status.ok()) << got[i].end.status.ToString();
    ASSERT_EQ(want[i].tokens.size(), got[i].tokens.size());
    const float gap = GapWhereTheyPart(want[i], got[i]);
    if (gap < 0) ++same;
    EXPECT_LE(gap, near_tie) << "prompt " << i << " parts from the CPU's answer without a near tie";
    widest = std::max(widest, gap);
  }
  std::cout << "  " << same << " of " << want.size() << " answers equal; widest gap " << widest
            << "\n";
  EXPECT_GE(same, least);
}

// Logits of a few units, two layers: fp32 sums in another order differ by some 1e-5.
TEST(CudaEngine, GreedyTextIsThatOfTheCpuInFp32) {
  const auto cpu = test::LoadTiny(test::BestCpu(), Model(16));
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kF32), Model(16));
  constexpr Sample kSample = {20, 64};
  ExpectSameText(Greedy(cpu, DType::kF32, kSample, true), Greedy(cuda, DType::kF32, kSample, true),
                 1e-4F, 18);
}

// As it is served: products and attention on matrix units, over a pool of bf16. On the way to a
// logit of up to 4 the card rounds to bf16 some ten times (inputs of products, queries, weights of
// values, in two layers), each time by at most 2^-9 of the value: errors of random sign add up to
// sqrt(10) * 2^-9 * 4 = 0.025 of a logit, twice that between two, and three times that at the most.
TEST(CudaEngine, GreedyTextIsNearThatOfTheCpuInBf16) {
  const auto cpu = test::LoadTiny(test::BestCpu(), Model(64));
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kBf16), Model(64));
  constexpr Sample kSample = {10, 8};
  ExpectSameText(Greedy(cpu, DType::kBF16, kSample, true),
                 Greedy(cuda, DType::kBF16, kSample, false), 0.15F, 5);
}

// What a small model's speed hangs on at decode: a card takes microseconds to begin a kernel.
TEST(CudaEngine, ADecodeStepIsSixKernelsALayer) {
  const test::BackendChoice by_kernel = {
      "CudaByKernel", [](int) {
        auto backend = CreateCudaBackend({.compute = CudaCompute::kBf16, .graphs = false});
        KVASIR_CHECK(backend.ok());
        return std::shared_ptr<Backend>(std::move(*backend));
      }};
  const auto launches_a_step = [&](int32_t layers) {
    test::TinyModelOptions options = Model(64);
    options.layers = layers;
    EngineOptions of_engine = test::ExactOptions(size_t{8} << 20);
    of_engine.draft_tokens = 0;
    of_engine.poison_blocks = false;
    const auto engine = test::MakeEngine(test::LoadTiny(by_kernel, options), of_engine);
    const auto launches = [&](int32_t tokens) {
      const size_t before = emulation::LaunchesSoFar();
      EXPECT_EQ(RunOne(*engine, Ask({Fresh({30, 31, 32})}, tokens), false).tokens.size(),
                size_t(tokens));
      return emulation::LaunchesSoFar() - before;
    };
    const size_t few = launches(3);
    return (launches(13) - few) / 10;
  };
  const size_t of_two = launches_a_step(2), of_four = launches_a_step(4);
  // The norm and query, key, value; rotation and append; attention; output; the norm, gate and up;
  // down.
  EXPECT_EQ((of_four - of_two) / 2, 6u);
  // Rows in, the last layer's rows out, the head, the token.
  EXPECT_LE(of_two - 2 * 6, 6u);
}

// Biases, norms of queries and keys, norms behind, windows, pairings.
TEST(CudaEngine, EveryArchitectureHasTheLogitsOfTheCpu) {
  for (const Architecture architecture :
       {Architecture::kLlama, Architecture::kQwen2, Architecture::kQwen3, Architecture::kGemma3}) {
    SCOPED_TRACE(static_cast<int>(architecture));
    test::TinyModelOptions options = Model(16);
    options.architecture = architecture;
    const auto logits = [&](const test::BackendChoice& backend) {
      const auto engine =
          test::MakeEngine(test::LoadTiny(backend, options), test::ExactOptions(size_t{64} << 10));
      const Answer answer = RunOne(*engine, Ask({Fresh(RandomTokens(30, 3))}, 2));
      EXPECT_EQ(answer.logits.size(), 2u) << answer.end.status.ToString();
      return answer.logits.empty() ? std::vector<float>() : answer.logits.back();
    };
    EXPECT_LE(test::MaxDifference(logits(test::BestCpu()), logits(Cuda(CudaCompute::kF32))), 1e-4F);
  }
}

// Over the same text, K and V of a chunk that was computed, saved, loaded and read back.
TEST(CudaEngine, ChunksAreSavedLoadedAndReadBack) {
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kF32), Model(16));
  auto engine = test::MakeEngine(cuda, test::ExactOptions(size_t{256} << 10));
  const Ids chunk = RandomTokens(21, 7);
  const auto capture = CaptureChunk(*engine, {}, chunk);
  const auto blocks = LoadChunk(*engine, *capture);
  std::vector<float> k, v;
  ASSERT_TRUE(engine->ReadBlocks(*blocks, 1, &k, &v).ok());
  const auto at = static_cast<std::ptrdiff_t>(capture->LayerStride());
  EXPECT_EQ(v, std::vector<float>(capture->v.begin() + at, capture->v.begin() + 2 * at));
  const Answer reused = RunOne(*engine, Ask({Reused(chunk, blocks), Fresh({5, 6})}, 4));
  const Answer fresh = RunOne(*engine, Ask({Fresh(test::Join({chunk, {5, 6}}))}, 4));
  EXPECT_EQ(reused.tokens, fresh.tokens);
}

// Of the library's algorithms, by the engine and a draft model, with a pool that is balanced first.
TEST(CudaEngine, WhatStepsMultiplyIsTriedBeforeTheFirstOne) {
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kBf16), Model(64));
  test::TinyModelOptions smaller = Model(32);
  smaller.layers = 1;
  const auto draft = LoadGgufModel(test::WriteTinyModel(smaller), *cuda.backend);
  ASSERT_TRUE(draft.ok());
  EngineOptions options = test::ExactOptions(size_t{2} << 20);
  options.kv_dtype = DType::kI8;
  options.poison_blocks = false;  // takes the emulated card long
  options.step_rows = 40;
  options.draft_model = *draft;
  options.draft_tokens = 2;
  const size_t before = emulation::CallsSoFar().trials;
  const auto engine = test::MakeEngine(cuda, options);
  const size_t tried = emulation::CallsSoFar().trials;
  EXPECT_GT(tried, before);
  std::vector<Request> requests;
  for (const int32_t length : {30, 90, 9, 12}) {
    requests.push_back(Ask({Fresh(RandomTokens(length, static_cast<uint64_t>(length)))}, 5));
  }
  for (const Answer& answer : RunAll(*engine, std::move(requests))) {
    EXPECT_TRUE(answer.end.status.ok()) << answer.end.status.ToString();
  }
  EXPECT_EQ(emulation::CallsSoFar().trials, tried);
}

class CudaEngineErrors : public testing::Test {
 protected:
  ~CudaEngineErrors() override {
    emulation::LoseDevice(Status::Ok());
    emulation::LimitDeviceMemory(SIZE_MAX);
  }
};

TEST_F(CudaEngineErrors, ACardThatIsLostEndsRequestsAndLeavesTheEngineUnhealthy) {
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kF32), Model(16));
  auto engine = test::MakeEngine(cuda, test::ExactOptions(size_t{256} << 10));
  Request request = Ask({Fresh({30, 31, 32})}, 50);
  int32_t steps = 0;
  request.on_logits = [&](const std::vector<float>&) {
    if (++steps == 5) emulation::LoseDevice(Internal("unspecified launch failure"));
  };
  const Answer answer = RunOne(*engine, std::move(request));
  EXPECT_EQ(answer.end.status.code(), StatusCode::kUnavailable);
  EXPECT_NE(answer.end.status.message().find("cuda-f32"), std::string::npos);
  EXPECT_EQ(answer.tokens.size(), 5u);
  EXPECT_EQ(engine->health().code(), StatusCode::kUnavailable);
  EXPECT_EQ(engine->Submit(Ask({Fresh({5})})).status().code(), StatusCode::kUnavailable);
}

TEST_F(CudaEngineErrors, ACardWithoutMemoryForAStepWorksOn) {
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kF32), Model(16));
  auto engine = test::MakeEngine(cuda, test::ExactOptions(size_t{256} << 10));
  const Answer want = RunOne(*engine, Ask({Fresh({30, 31, 32})}, 4));
  emulation::LimitDeviceMemory(emulation::DeviceBytesInUse());
  const Answer large = RunOne(*engine, Ask({Fresh(RandomTokens(200, 3))}, 4));
  EXPECT_EQ(large.end.status.code(), StatusCode::kResourceExhausted) << large.end.status.ToString();
  EXPECT_TRUE(engine->health().ok());
  EXPECT_EQ(RunOne(*engine, Ask({Fresh({30, 31, 32})}, 4)).tokens, want.tokens);
}

TEST_F(CudaEngineErrors, ACardWithoutMemoryForALoadWorksOn) {
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kF32), Model(16));
  EngineOptions options = test::ExactOptions(size_t{256} << 10);
  options.poison_blocks = false;  // nothing has been loaded
  auto engine = test::MakeEngine(cuda, options);
  const Ids chunk = RandomTokens(21, 7);
  const auto capture = CaptureChunk(*engine, {}, chunk);
  const Answer want = RunOne(*engine, Ask({Fresh(test::Join({chunk, {5, 6}}))}, 4));
  emulation::LimitDeviceMemory(emulation::DeviceBytesInUse());
  EXPECT_EQ(engine->LoadBlocks(test::PlanesOf(*capture)).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(engine->health().ok());
  EXPECT_EQ(RunOne(*engine, Ask({Fresh(test::Join({chunk, {5, 6}}))}, 4)).tokens, want.tokens);
  emulation::LimitDeviceMemory(SIZE_MAX);
  const auto blocks = LoadChunk(*engine, *capture);
  EXPECT_EQ(RunOne(*engine, Ask({Reused(chunk, blocks), Fresh({5, 6})}, 4)).tokens, want.tokens);
}

TEST_F(CudaEngineErrors, ACardWithoutMemoryForThePoolIsSaidAtStart) {
  const auto cuda = test::LoadTiny(Cuda(CudaCompute::kF32), Model(16));
  emulation::LimitDeviceMemory(emulation::DeviceBytesInUse() + (size_t{1} << 20));
  const auto engine = Engine::Create(cuda.model, cuda.backend, test::ExactOptions());
  EXPECT_EQ(engine.status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace kvasir
