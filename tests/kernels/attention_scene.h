// What the tests of attention share: scenes with their KV and the error that fp32 may make.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/conformance_fixture.h"

namespace kvasir {

inline constexpr int32_t kBlocks = 400;

// Puts the KV of FillSegments into another backend's pool.
inline void LoadSegments(Backend& backend, KvPool& pool, int32_t layer, const StepBatch& batch,
                         const std::vector<SegmentKv>& kv) {
  for (size_t s = 0; s < kv.size(); ++s) {
    KvLayerPlanes planes{DType::kF32, batch.segments[s].length, kv[s].k.data(),
                         nullptr,     kv[s].v.data(),           nullptr};
    EXPECT_TRUE(
        backend.LoadKv(pool, layer, planes, BlocksOf(batch, batch.segments[s]), nullptr).ok());
  }
}

inline double MaxNorm(const std::vector<float>& values, int64_t width) {
  double top = 0;
  for (size_t begin = 0; begin < values.size(); begin += static_cast<size_t>(width)) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) {
      squares += std::pow(values[begin + static_cast<size_t>(i)], 2);
    }
    top = std::max(top, squares);
  }
  return std::sqrt(top);
}

// What a backend rounds besides fp32 sums: a score is off by `score` S, a sum of weighted values
// by `weight` times the largest value.
struct Rounding {
  double score = 0, weight = 0;
};

// Bf16 products: queries and weights have 8 bits (2^-9). Int8 pools: every dimension of a query is
// off by half a step of its largest / 32767, so a score by sqrt(D) 2^-16 |q| |k|; every weight by
// half of 1/32767 of the largest of all. Queries and keys are balanced by 1/2..2
// (BalanceOf), which may make |q| |k| four times as large. CUDA rounds queries and weights, over
// int8 pools as over others, to bf16 or not at all.
inline Rounding RoundingOf(const Backend& backend, const AttentionCase& c, int32_t keys) {
  if (backend.name() == "reference") return {};
  const bool cuda = backend.name().starts_with("cuda");
  if (c.dtype == DType::kI8 && !cuda) return {4 * std::sqrt(c.head_dim) * 0x1p-16, keys * 0x1p-16};
  const bool matrix_units = c.head_dim == 64 || c.head_dim == 128 || c.head_dim == 256;
  const bool rounds =
      backend.name() == "cpu-avx512-int8" || (backend.name() == "cuda-bf16" && matrix_units);
  if (rounds && c.dtype == DType::kBF16) return {0x1p-9, 0x1p-9};
  if (rounds && c.dtype == DType::kI8) return {4 * 0x1p-9, 0x1p-9};
  return {};
}

// With S = scale |q| |k| a score is off by at most (D + 12) u S: the dot product's D u, rotation
// and scaling the rest. Weights are relative to e^score, so numerator and denominator each are off
// by that and by the longest chain of fp32 sums, 512 keys of a split, plus merges and exp2.
// Rounding comes on top.
inline double WeightTolerance(const AttentionCase& c, const std::vector<float>& q,
                              const std::vector<SegmentKv>& kv, int32_t keys,
                              const Rounding& rounding = {}) {
  double key = 0;
  for (const SegmentKv& segment : kv) key = std::max(key, MaxNorm(segment.k, c.head_dim));
  const double magnitude = c.rope != nullptr ? std::abs(c.rope->magnitude) : 1.0;
  const double score = c.scale() * MaxNorm(q, c.head_dim) * key * std::max(1.0, magnitude);
  const double chain = std::min(keys, 512) + keys / 512 + 16;
  // And second order.
  const double rounded = (2 * rounding.score * score + rounding.weight) * 1.05;
  return rounded + kUnit * (2 * (c.head_dim + 12) * score + 2 * chain);
}

inline double AttentionTolerance(const AttentionCase& c, const std::vector<float>& q,
                                 const std::vector<SegmentKv>& kv, int32_t keys,
                                 const Rounding& rounding = {}) {
  double value = 0;
  for (const SegmentKv& segment : kv) {
    for (const float v : segment.v) value = std::max(value, std::abs(double{v}));
  }
  return value * WeightTolerance(c, q, kv, keys, rounding);
}

struct Scene {
  AttentionCase c;
  StepBatch batch;
  std::vector<float> q;
  std::vector<SegmentKv> kv;
  std::unique_ptr<KvPool> pool;
  double tolerance = 0;         // of outputs
  double weight_tolerance = 0;  // of softmax weights, relative
};

inline std::vector<float> BalanceOf(const KvLayout& layout, std::mt19937& random) {
  std::vector<float> balance(static_cast<size_t>(layout.KeyChannels()));
  for (float& value : balance) value = std::exp2(static_cast<float>(random() % 65) / 32 - 1);
  return balance;
}

inline Scene MakeScene(Backend& backend, const AttentionCase& c,
                       const std::vector<SequenceSpec>& specs, std::mt19937& random) {
  Scene scene;
  scene.c = c;
  SceneBuilder builder(kBlocks, random);
  int32_t keys = 0;
  for (const SequenceSpec& spec : specs) {
    builder.Add(spec);
    keys = std::max(keys, TokensOf(spec));
  }
  scene.batch = std::move(builder.batch);
  scene.q = Normal(static_cast<size_t>(scene.batch.rows() * c.q_width()), random);
  const KvLayout layout{2, c.kv_heads, c.head_dim, c.dtype};
  scene.pool = std::move(*backend.CreateKvPool(layout, kBlocks, BalanceOf(layout, random)));
  scene.kv = FillSegments(backend, *scene.pool, 1, scene.batch, random);
  const Rounding rounding = RoundingOf(backend, c, keys);
  scene.tolerance = AttentionTolerance(c, scene.q, scene.kv, keys, rounding);
  scene.weight_tolerance = WeightTolerance(c, scene.q, scene.kv, keys, rounding);
  return scene;
}

inline std::vector<float> Attend(Backend& backend, const Scene& scene,
                                 std::span<const MassRange> mass = {}) {
  return RunAttention(backend, *scene.pool, 1, scene.batch, scene.c, scene.q, mass);
}

inline std::string Describe(const AttentionCase& c) {
  return "G " + std::to_string(c.kv_heads) + " group " + std::to_string(c.group) + " D " +
         std::to_string(c.head_dim) + " " + std::string(TraitsOf(c.dtype).name) + " window " +
         std::to_string(c.window) + " rope " + std::to_string(c.rope ? c.rope->rotary_dims : 0);
}

// Rotary tables of every kind: none, both pairings, partial, with a magnitude.
struct Ropes {
  explicit Ropes(int32_t head_dim)
      : interleaved(RopeTable::Plain(RopePairing::kInterleaved, head_dim, 10000)),
        half(RopeTable::Plain(RopePairing::kHalfSplit, head_dim, 1e6)),
        partial(RopeTable::Plain(RopePairing::kHalfSplit, head_dim / 4 * 2, 10000)),
        partial_interleaved(RopeTable::Plain(RopePairing::kInterleaved, head_dim / 4 * 2, 500)) {
    half.magnitude = 1.25f;
  }
  std::vector<const RopeTable*> all() const {
    return {nullptr, &interleaved, &half, &partial, &partial_interleaved};
  }
  RopeTable interleaved, half, partial, partial_interleaved;
};

// Segments of lengths that are no multiples of a block, rows all over them.
inline std::vector<SequenceSpec> MixedSequences(int32_t rows) {
  std::vector<SequenceSpec> specs = {
      {{37, 1, 64, 100, 5}, {}}, {{300, 17}, {}}, {{1}, {0}}, {{16, 16, 16}, {15, 16, 47}}};
  specs[0].rows = {0, 36, 37, 38, 101, 102, 150, 201, 206};
  specs[1].rows = RowRange(std::max(0, 317 - rows), 317);
  return specs;
}

// `batch` with row `row` of sequence `sequence` alone. `cut` also takes away what lies behind the
// row, as in a step that computes nothing later.
inline StepBatch RowAlone(const StepBatch& batch, size_t sequence, int32_t row, bool cut) {
  const auto r = static_cast<size_t>(row);
  const SequenceSpan& span = batch.sequences[sequence];
  StepBatch alone;
  alone.token_ids = {batch.token_ids[r]};
  alone.positions = {batch.positions[r]};
  alone.local_positions = {batch.local_positions[r]};
  alone.slots = {batch.slots[r]};
  alone.block_table = batch.block_table;
  for (int32_t s = span.segment_begin; s < span.segment_end; ++s) {
    SegmentRef segment = batch.segments[static_cast<size_t>(s)];
    if (cut && segment.base > batch.positions[r]) break;
    if (cut) segment.length = std::min(segment.length, batch.positions[r] - segment.base + 1);
    alone.segments.push_back(segment);
  }
  alone.sequences = {{0, 1, 0, static_cast<int32_t>(alone.segments.size())}};
  return alone;
}

}  // namespace kvasir
