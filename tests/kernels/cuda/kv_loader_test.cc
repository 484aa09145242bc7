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
    backend_->LoadKv(pool, layer, chunk.planes(), chunk.blocks, nullptr);
  }
  void ExpectLoaded(const KvPool& pool, int32_t layer, const Chunk& chunk) {
    std::vector<float> k(chunk.k.size()), v(chunk.v.size());
    backend_->ReadKv(pool, layer, chunk.blocks, chunk.tokens, k.data(), v.data());
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
  backend_->ReadKv(*pool, 0, chunk.blocks, 1, read_k.data(), read_v.data());
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
