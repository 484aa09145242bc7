// What a step of CudaBackend asks of the card, counted on the emulated one: after the first steps a
// decode step copies its integers once, waits once and allocates nothing, with captured rows and
// wanted attention weights or without; and what it computes is what single calls compute.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/step_tables.h"
#include "tests/kernels/attention_scene.h"
#include "tests/kernels/cuda_emulation/device.h"

namespace kvasir {
namespace {

constexpr int32_t kLayers = 2, kHeads = 2, kKvHeads = 1, kDim = 64, kWidth = kHeads * kDim;

// Just enough of a model to call every operator in the order of Forward.
class StepModel {
 public:
  explicit StepModel(Backend& backend)
      : backend_(backend),
        random_(3),
        rope_(RopeTable::Plain(RopePairing::kHalfSplit, kDim, 10000)),
        x_(backend, 2, kWidth),
        q_(backend, 2, kWidth),
        k_(backend, 2, kKvHeads * kDim),
        v_(backend, 2, kKvHeads * kDim),
        out_(backend, 2, kWidth),
        last_(backend, 2, kWidth),
        logits_(backend, 2, 50) {
    square_ = Weight(kWidth);
    key_ = Weight(kKvHeads * kDim);
    head_ = Weight(50);
    pool_ = std::move(*backend.CreateKvPool({kLayers, kKvHeads, kDim, DType::kBF16}, 300));
  }

  struct Saved {
    std::vector<float> k, v, mass, logits;
  };

  // Two sequences, each with one more token. `all`: rows are saved and weights are wanted.
  Saved Decode(int32_t tokens, bool all) {
    const StepBatch batch = BatchOf(tokens);
    Saved saved;
    const size_t width = kKvHeads * kDim, mass = size_t(kHeads * kPositions);
    saved.k.resize(kLayers * width);
    saved.v.resize(kLayers * width);
    saved.mass.assign(kLayers * mass, 0.0f);
    saved.logits.resize(100);
    backend_.BeginStep();
    const auto plan = backend_.PlanAttention(batch);
    backend_.Embed(*head_, batch.token_ids, 1.0f, x_.view());
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      backend_.MatMul(x_.view(), *square_, nullptr, false, q_.view());
      backend_.MatMul(x_.view(), *key_, nullptr, false, k_.view());
      backend_.MatMul(q_.view(), *key_, nullptr, false, v_.view());
      const auto at = static_cast<size_t>(layer);
      if (all) {
        backend_.SaveKv(k_.view(), v_.view(), 1, 2, &saved.k[at * width], &saved.v[at * width]);
      }
      backend_.AppendKv(*pool_, layer, k_.view(), v_.view(), batch, &rope_);
      AttentionArgs args{pool_.get(), layer,  q_.view(),  0.1f,       0,
                         &rope_,      &batch, plan.get(), out_.view()};
      const MassRange range{1, 2, &saved.mass[at * mass], kPositions};
      if (all) args.mass = {&range, 1};
      backend_.Attention(args);
      backend_.Add(x_.view(), out_.view());
    }
    backend_.GatherRows(x_.view(), batch.logit_rows, last_.view());
    backend_.MatMul(last_.view(), *head_, nullptr, false, logits_.view());
    backend_.Download(logits_.view().data, saved.logits.data(), 400);
    backend_.EndStep();
    return saved;
  }

 private:
  static constexpr int32_t kPositions = 150;

  std::unique_ptr<PackedWeight> Weight(int64_t outputs) {
    const auto values = Normal(static_cast<size_t>(outputs * kWidth), random_, 0.05f);
    return std::move(*backend_.Pack(DType::kF32, values.data(), outputs, kWidth));
  }

  static StepBatch BatchOf(int32_t tokens) {
    std::mt19937 random(7);
    SceneBuilder builder(300, random);
    builder.Add({{kPositions}, {tokens}});
    builder.Add({{kPositions}, {tokens}});
    StepBatch batch = std::move(builder.batch);
    batch.segments[0].length = tokens + 1;
    batch.segments[1].length = tokens + 1;
    batch.token_ids = {tokens % 50, (tokens + 7) % 50};
    batch.logit_rows = {0, 1};
    return batch;
  }

  Backend& backend_;
  std::mt19937 random_;
  const RopeTable rope_;
  std::unique_ptr<PackedWeight> square_, key_, head_;
  std::unique_ptr<KvPool> pool_;
  Tensor x_, q_, k_, v_, out_, last_, logits_;
};

emulation::DeviceCalls Since(const emulation::DeviceCalls& before) {
  const emulation::DeviceCalls now = emulation::CallsSoFar();
  return {now.allocations - before.allocations, now.waits - before.waits,
          now.uploads - before.uploads, now.unpinned - before.unpinned};
}

TEST(CudaStep, ADecodeStepCopiesOnceWaitsOnceAndAllocatesNothing) {
  for (const bool all : {false, true}) {
    const auto backend = std::move(*CreateCudaBackend({}));
    StepModel model(*backend);
    // Not at positions where a buffer outgrows a power of two; there are fewer of these the longer
    // the text is.
    for (int32_t tokens = 66; tokens < 69; ++tokens) model.Decode(tokens, all);
    for (int32_t tokens = 69; tokens < 72; ++tokens) {
      const emulation::DeviceCalls before = emulation::CallsSoFar();
      model.Decode(tokens, all);
      const emulation::DeviceCalls calls = Since(before);
      EXPECT_EQ(calls.waits, 1u);
      EXPECT_EQ(calls.allocations, 0u);
      EXPECT_EQ(calls.unpinned, 0u);
      EXPECT_EQ(calls.uploads, all ? 1u + kLayers : 1u);  // and the sums so far of each layer
    }
    ASSERT_TRUE(backend->status().ok());
  }
}

TEST(CudaStep, WhatIsSavedAndLookedAtChangesNothing) {
  const auto backend = std::move(*CreateCudaBackend({}));
  StepModel plain(*backend), watched(*backend);
  for (int32_t tokens = 0; tokens < 3; ++tokens) {
    const auto want = plain.Decode(tokens, false), got = watched.Decode(tokens, true);
    EXPECT_EQ(got.logits, want.logits);
    EXPECT_NE(got.k[0], 0.0f);
    for (int32_t layer = 0; layer < kLayers; ++layer) {  // a row's weights sum to one
      double sum = 0;
      for (int32_t i = 0; i < 150; ++i) sum += got.mass[size_t(layer * kHeads * 150 + i)];
      EXPECT_NEAR(sum, 1, 1e-2);
    }
  }
}

TEST(StepTables, StayWhereTheyAreUntilOneOutgrowsItsRoom) {
  const auto stream = *cuda::CreateStream(false);
  {
    cuda::StepTables tables(stream);
    const auto upload = [&](const std::vector<int32_t>& tokens) {
      cuda::StepTables::Contents contents;
      contents[size_t(cuda::StepTable::kTokens)] = std::as_bytes(std::span(tokens));
      return tables.Upload(contents);
    };
    const std::vector<int32_t> few = {1, 2}, others = {3, 4, 5}, many(100, 6);
    ASSERT_TRUE(upload(few).ok());
    const uint64_t layout = tables.layout();
    const auto* const slots = tables.At<int32_t>(cuda::StepTable::kSlots);
    EXPECT_NE(tables.Find(cuda::StepTable::kTokens, few), nullptr);
    EXPECT_EQ(tables.Find(cuda::StepTable::kTokens, others), nullptr);
    EXPECT_EQ(tables.Find(cuda::StepTable::kSlots, few), nullptr);
    ASSERT_TRUE(upload(others).ok());
    EXPECT_EQ(tables.layout(), layout);
    EXPECT_EQ(tables.At<int32_t>(cuda::StepTable::kSlots), slots);
    EXPECT_NE(tables.Find(cuda::StepTable::kTokens, others), nullptr);
    ASSERT_TRUE(upload(many).ok());
    EXPECT_NE(tables.layout(), layout);
    EXPECT_NE(tables.Find(cuda::StepTable::kTokens, many), nullptr);
  }
  cuda::DestroyStream(stream);
}

}  // namespace
}  // namespace kvasir
