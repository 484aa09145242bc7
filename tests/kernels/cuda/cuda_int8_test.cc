// Int8 pools on the matrix units: every width that they take, in tiles of decode and of prefill,
// against the reference; and what the kernel does not round: keys and values as they are stored.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/attention_scene.h"

namespace kvasir {
namespace {

std::unique_ptr<Backend> Make() { return std::move(*CreateCudaBackend({})); }

TEST(CudaInt8, EveryWidthInSmallAndLargeTiles) {
  std::mt19937 random(4);
  const auto backend = Make(), reference = CreateReferenceBackend();
  for (const int32_t head_dim : {64, 128, 256}) {
    const Ropes ropes(head_dim);
    AttentionCase c;
    c.kv_heads = 2;
    c.group = 2;
    c.head_dim = head_dim;
    c.dtype = DType::kI8;
    c.rope = ropes.all()[1 + random() % 4];
    c.window = head_dim == 128 ? 50 : 0;
    // More keys than a split where it is cheap.
    const int32_t keys = head_dim == 64 ? 540 : 90;
    const Scene scene =
        MakeScene(*backend, c, {{{keys, 13}, {keys + 12}}, {{75}, RowRange(40, 75)}}, random);
    const auto got = Attend(*backend, scene);
    auto pool = std::move(*reference->CreateKvPool({2, 2, head_dim, DType::kF32}, kBlocks));
    LoadSegments(*reference, *pool, 1, scene.batch, scene.kv);
    const auto want = RunAttention(*reference, *pool, 1, scene.batch, c, scene.q);
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], scene.tolerance) << "D " << head_dim << " at " << i;
    }
  }
}

// Queries of one bf16 bit and equal weights: what comes out is exact although every key and value
// takes all of its eight bits, with scales of its own.
TEST(CudaInt8, WidenedKeysAndValuesAreNotRounded) {
  const auto backend = Make();
  constexpr int32_t kTokens = 64, kDim = 64;
  auto pool = std::move(*backend->CreateKvPool({1, 1, kDim, DType::kI8}, 4));
  std::vector<float> k(kTokens * kDim), v(k.size());
  std::vector<double> want(kDim, 0.0);
  for (int32_t t = 0; t < kTokens; ++t) {
    for (int32_t d = 0; d < kDim; ++d) {
      const auto at = static_cast<size_t>(t * kDim + d);
      k[at] = static_cast<float>(d % 2 == 0 ? 127 - d : d - 128);  // all tokens the same
      v[at] = static_cast<float>((37 * d + 11 * t) % 255 - 127) * (t % 2 == 0 ? 1.0f : 0.25f);
      if (d == t % kDim) v[at] = t % 2 == 0 ? 127.0f : 31.75f;
      want[static_cast<size_t>(d)] += v[at] / kTokens;
    }
    k[static_cast<size_t>(t * kDim)] = 127;
    k[static_cast<size_t>(t * kDim + 32)] = 127;
  }
  EXPECT_TRUE(backend
                  ->LoadKv(*pool, 0, {DType::kF32, kTokens, k.data(), nullptr, v.data(), nullptr},
                           std::vector<int32_t>{2, 0, 3, 1}, nullptr)
                  .ok());
  StepBatch batch;
  batch.token_ids = {0};
  batch.positions = batch.local_positions = {kTokens - 1};
  batch.slots = {0};
  batch.sequences = {{0, 1, 0, 1}};
  batch.segments = {{0, kTokens, 0}};
  batch.block_table = {2, 0, 3, 1};
  AttentionCase c;
  const auto out = RunAttention(*backend, *pool, 0, batch, c, std::vector<float>(kDim, 0.5f));
  for (int32_t d = 0; d < kDim; ++d) {
    ASSERT_NEAR(out[static_cast<size_t>(d)], want[static_cast<size_t>(d)], 127 * 64 * 0x1p-24) << d;
  }
}

}  // namespace
}  // namespace kvasir
