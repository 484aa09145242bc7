// Loads beside a step, on emulated streams that run as late as they may: a load waits for nothing,
// what needs its blocks finds them, and nothing else waits for it.
#include "kernels/cuda/kv_loader.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/attention_scene.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/memory.h"
#include "tests/kernels/cuda_emulation/platform.h"

namespace kvasir {
namespace {

constexpr int32_t kDim = 64;

struct Chunk {
  Chunk(int32_t tokens, int32_t first_block, std::mt19937& random)
      : k(Normal(static_cast<size_t>(tokens * kDim), random)),
        v(Normal(static_cast<size_t>(tokens * kDim), random)),
        tokens(tokens),
        blocks(static_cast<size_t>(BlocksFor(tokens))) {
    std::iota(blocks.begin(), blocks.end(), first_block);
  }
  KvLayerPlanes planes() const {
    return {DType::kF32, tokens, k.data(), nullptr, v.data(), nullptr};
  }
  std::vector<float> k, v;
  int32_t tokens;
  std::vector<int32_t> blocks;
};

class CudaLoads : public testing::Test {
 protected:
  std::unique_ptr<KvPool> Pool(int32_t layers) {
    return std::move(*backend_->CreateKvPool({layers, 1, kDim, DType::kF32}, 400));
  }
  void Load(KvPool& pool, int32_t layer, const Chunk& chunk) {
    EXPECT_TRUE(backend_->LoadKv(pool, layer, chunk.planes(), chunk.blocks, nullptr).ok());
  }
  void ExpectLoaded(const KvPool& pool, int32_t layer, const Chunk& chunk) {
    std::vector<float> k(chunk.k.size()), v(chunk.v.size());
    EXPECT_TRUE(backend_->ReadKv(pool, layer, chunk.blocks, chunk.tokens, k.data(), v.data()).ok());
    EXPECT_EQ(k, chunk.k);
    EXPECT_EQ(v, chunk.v);
  }

  std::mt19937 random_{9};
  std::unique_ptr<Backend> backend_ = std::move(*CreateCudaBackend({.compute = CudaCompute::kF32}));
};

// Layers of 10 KiB: all of them in one copy, once the last one is there.
TEST_F(CudaLoads, SmallLayersGoTogetherAndNobodyWaits) {
  const auto pool = Pool(12);
  std::vector<Chunk> layers;
  for (int32_t layer = 0; layer < 12; ++layer) layers.emplace_back(20, 3, random_);
  const emulation::DeviceCalls before = emulation::CallsSoFar();
  for (int32_t layer = 0; layer < 12; ++layer) {
    Load(*pool, layer, layers[static_cast<size_t>(layer)]);
    EXPECT_EQ(emulation::CallsSoFar().uploads - before.uploads, layer == 11 ? 1u : 0u) << layer;
  }
  EXPECT_EQ(emulation::CallsSoFar().waits, before.waits);
  EXPECT_EQ(emulation::CallsSoFar().unpinned, before.unpinned);
  for (int32_t layer = 0; layer < 12; ++layer) {
    ExpectLoaded(*pool, layer, layers[static_cast<size_t>(layer)]);
  }
}

// A step that comes upon a layer sends what has been gathered; the thread that asks does not wait.
TEST_F(CudaLoads, AttentionFindsALayerThatIsStillOnItsWay) {
  const auto pool = Pool(3);
  const Chunk chunk(40, 5, random_), other(40, 60, random_);
  AttentionCase c;
  c.dtype = DType::kF32;
  StepBatch batch;
  batch.token_ids = {0};
  batch.positions = batch.local_positions = {39};
  batch.slots = {0};
  batch.sequences = {{0, 1, 0, 1}};
  batch.segments = {{0, 40, 0}};
  batch.block_table = chunk.blocks;
  const auto q = Normal(kDim, random_);
  Load(*pool, 0, chunk);
  const auto early = RunAttention(*backend_, *pool, 0, batch, c, q);
  ExpectLoaded(*pool, 0, chunk);
  const size_t before = emulation::CallsSoFar().uploads;
  EXPECT_EQ(RunAttention(*backend_, *pool, 0, batch, c, q), early);
  // Blocks and layers that it does not see stay where they are.
  const size_t its_own = emulation::CallsSoFar().uploads - before;
  Load(*pool, 0, other);
  Load(*pool, 1, chunk);
  const size_t uploads = emulation::CallsSoFar().uploads;
  EXPECT_EQ(RunAttention(*backend_, *pool, 0, batch, c, q), early);
  EXPECT_EQ(emulation::CallsSoFar().uploads - uploads, its_own);
  ExpectLoaded(*pool, 0, other);
  ExpectLoaded(*pool, 1, chunk);
}

// More than the arena holds, from source memory that is gone at once.
TEST_F(CudaLoads, AnArenaThatIsFullIsUsedAgain) {
  const auto pool = Pool(30);
  std::vector<Chunk> layers;
  for (int32_t layer = 0; layer < 30; ++layer) layers.emplace_back(2100, 7, random_);
  for (int32_t layer = 0; layer < 30; ++layer) {
    const Chunk gone = layers[static_cast<size_t>(layer)];
    Load(*pool, layer, gone);
  }
  for (const int32_t layer : {0, 7, 14, 29}) {
    ExpectLoaded(*pool, layer, layers[static_cast<size_t>(layer)]);
  }
}

// A load whose blocks went to somebody else does not come too late.
TEST_F(CudaLoads, WhatIsAppendedLaterStays) {
  const auto pool = Pool(2);
  const Chunk chunk(16, 4, random_);
  Load(*pool, 0, chunk);
  Tensor k(*backend_, 1, kDim, Normal(kDim, random_)), v(*backend_, 1, kDim, Normal(kDim, random_));
  StepBatch batch;
  batch.token_ids = {0};
  batch.positions = batch.local_positions = {0};
  batch.slots = {4 * kBlockTokens};
  backend_->AppendKv(*pool, 0, k.view(), v.view(), batch, nullptr);
  std::vector<float> read_k(kDim), read_v(kDim);
  EXPECT_TRUE(backend_->ReadKv(*pool, 0, chunk.blocks, 1, read_k.data(), read_v.data()).ok());
  EXPECT_EQ(read_k, k.host);
  EXPECT_EQ(read_v, v.host);
}

TEST_F(CudaLoads, ABlockIsCopiedWithWhatIsOnItsWay) {
  const auto pool = Pool(3);
  const Chunk chunk(16, 4, random_);
  Chunk copy = chunk;
  copy.blocks = {9};
  for (int32_t layer = 0; layer < 2; ++layer) Load(*pool, layer, chunk);
  backend_->CopyBlock(*pool, 4, 9);
  for (int32_t layer = 0; layer < 2; ++layer) ExpectLoaded(*pool, layer, copy);
}

class CudaLoadsWithoutMemory : public CudaLoads {
 protected:
  ~CudaLoadsWithoutMemory() override {
    EXPECT_TRUE(emulation::TakeLaunchFailure().ok());
    Limit(SIZE_MAX);
  }
  static void Limit(size_t bytes) { emulation::LimitDeviceMemory(bytes); }
  Status TryLoad(KvPool& pool, int32_t layer, const Chunk& chunk) {
    return backend_->LoadKv(pool, layer, chunk.planes(), chunk.blocks, nullptr);
  }
  void ExpectLacked(const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
    EXPECT_TRUE(backend_->status().ok()) << backend_->status().ToString();
  }
};

// Of one large layer there is room in the arena's first part, of two there is not.
TEST_F(CudaLoadsWithoutMemory, ALoadFailsAloneAndWorksLater) {
  const auto pool = Pool(2);
  const Chunk small(20, 3, random_), large(6000, 20, random_);
  Limit(emulation::DeviceBytesInUse());
  ExpectLacked(TryLoad(*pool, 0, small));
  Limit(SIZE_MAX);
  Load(*pool, 0, small);
  Limit(emulation::DeviceBytesInUse());
  Load(*pool, 0, large);
  ExpectLacked(TryLoad(*pool, 1, large));
  ExpectLacked(TryLoad(*pool, 1, large));
  Load(*pool, 1, small);
  Limit(SIZE_MAX);
  Load(*pool, 1, large);
  for (int32_t layer = 0; layer < 2; ++layer) {
    ExpectLoaded(*pool, layer, small);
    ExpectLoaded(*pool, layer, large);
  }
}

// A card may need memory for a kernel's first launch.
TEST_F(CudaLoadsWithoutMemory, WhatCannotBeSentStaysGathered) {
  const auto pool = Pool(2);
  const Chunk first(20, 3, random_), last(20, 3, random_);
  Load(*pool, 0, first);
  emulation::FailNextLaunch(ResourceExhausted("CUDA: kernel: out of memory"));
  ExpectLacked(TryLoad(*pool, 1, last));
  ExpectLoaded(*pool, 0, first);
  Load(*pool, 1, last);
  ExpectLoaded(*pool, 1, last);
}

TEST_F(CudaLoadsWithoutMemory, AReadFailsAloneAndWorksLater) {
  const auto pool = Pool(1);
  const Chunk chunk(20, 3, random_);
  Load(*pool, 0, chunk);
  std::vector<float> k(chunk.k.size()), v(chunk.v.size());
  Limit(emulation::DeviceBytesInUse());
  ExpectLacked(backend_->ReadKv(*pool, 0, chunk.blocks, chunk.tokens, k.data(), v.data()));
  Limit(SIZE_MAX);
  ExpectLoaded(*pool, 0, chunk);
}

// A step without memory is none of a load's errors, nor the other way round.
TEST_F(CudaLoadsWithoutMemory, AFailedStepLeavesLoadsAlone) {
  const auto pool = Pool(1);
  const Chunk chunk(20, 3, random_);
  Tensor x(*backend_, 1, 4, {1, 2, 3, 4}), y(*backend_, 1, 4, {1, 1, 1, 1});
  backend_->BeginStep();
  emulation::FailNextLaunch(ResourceExhausted("CUDA: kernel: out of memory"));
  backend_->Add(x.view(), y.view());
  Load(*pool, 0, chunk);
  ExpectLoaded(*pool, 0, chunk);
  EXPECT_EQ(backend_->status().code(), StatusCode::kResourceExhausted);
  backend_->EndStep();
  backend_->BeginStep();
  EXPECT_TRUE(backend_->status().ok());
  backend_->EndStep();
}

// A chunk that was given up, of a pool that is gone.
TEST_F(CudaLoads, APoolMayGoBeforeItsLoads) {
  const Chunk chunk(16, 4, random_);
  auto pool = Pool(2);
  Load(*pool, 0, chunk);
  pool.reset();
  pool = Pool(1);
  Load(*pool, 0, chunk);
  ExpectLoaded(*pool, 0, chunk);
}

}  // namespace
}  // namespace kvasir
