// Scaled context (ContextScale) and segments side by side: every present backend against the
// reference, the reference by hand, and what must not change where nothing is scaled.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/kernels/attention_scene.h"

namespace kvasir {
namespace {

using ConformanceContext = Conformance;

// Segments [begin, end) of the first sequence become its context, side by side if `shared`.
void MakeContext(StepBatch* batch, int32_t begin, int32_t end, const ContextScale& scale,
                 bool shared) {
  batch->sequences[0].context = scale;
  const int32_t base = batch->segments[static_cast<size_t>(begin)].base;
  for (int32_t s = begin; s < end; ++s) {
    SegmentRef& segment = batch->segments[static_cast<size_t>(s)];
    segment.context = true;
    if (shared) segment.base = base;
  }
}

// A score's error grows with 1 / T, and the shift (s - 1) S of the context's weights has the error
// of a score and of a sum more.
double ScaledTolerance(const Scene& scene, const ContextScale& scale) {
  return scene.tolerance * (1 + std::abs(scale.scale - 1)) / std::min(scale.temperature, 1.0f);
}

TEST_P(ConformanceContext, LikeTheReference) {
  const Ropes ropes(64);
  for (const ContextScale scale : {ContextScale{0.7f, 0.8f}, {1.3f, 1.2f}, {0.5f, 1}, {1, 0.6f}}) {
    for (const bool shared : {false, true}) {
      for (const int32_t group : {1, 3}) {
        AttentionCase c;
        c.group = group;
        c.dtype = kPoolTypes[random_() % 3];
        c.rope = ropes.all()[random_() % 5];
        Scene scene = MakeScene(*backend_, c, MixedSequences(20), random_);
        MakeContext(&scene.batch, 1, 4, scale, shared);
        const auto got = Attend(*backend_, scene);
        auto pool =
            std::move(*reference_->CreateKvPool({2, c.kv_heads, c.head_dim, DType::kF32}, kBlocks));
        LoadSegments(*reference_, *pool, 1, scene.batch, scene.kv);
        const auto want = RunAttention(*reference_, *pool, 1, scene.batch, c, scene.q);
        for (size_t i = 0; i < got.size(); ++i) {
          ASSERT_NEAR(got[i], want[i], ScaledTolerance(scene, scale)) << Describe(c) << " at " << i;
        }
      }
    }
  }
}

TEST_P(ConformanceContext, ByHand) {
  // Context keys (1, 0), (0, 1) with values 1 and 2, another key (1, 1) with value 4; q = (2, 1).
  // T = 2: context scores 1 and 1/2, S = log(e + sqrt(e)); s = 1/2: they weigh exp(S / 2) in all.
  auto pool = std::move(*backend_->CreateKvPool({1, 1, 2, DType::kF32}, 2));
  const std::vector<float> k = {1, 0, 0, 1}, v = {1, 0, 2, 0}, other_k = {1, 1}, other_v = {4, 0};
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0, {DType::kF32, 2, k.data(), nullptr, v.data(), nullptr},
                           std::vector<int32_t>{0}, nullptr)
                  .ok());
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0,
                           {DType::kF32, 1, other_k.data(), nullptr, other_v.data(), nullptr},
                           std::vector<int32_t>{1}, nullptr)
                  .ok());
  StepBatch batch;
  batch.token_ids = {0};
  batch.positions = {2};
  batch.local_positions = {0};
  batch.slots = {16};
  batch.sequences = {{0, 1, 0, 2, {2.0f, 0.5f}}};
  batch.segments = {{0, 2, 0, true}, {2, 1, 1, false}};
  batch.block_table = {0, 1};
  Tensor q(*backend_, 1, 2, {2, 1}), out(*backend_, 1, 2);
  const auto plan = backend_->PlanAttention(batch);
  backend_->Attention({pool.get(), 0, q.view(), 1.0f, 0, nullptr, &batch, plan.get(), out.view()});
  out.Pull();
  const double first = std::exp(1.0), second = std::exp(0.5), sum = first + second;
  const double share = std::sqrt(sum) / sum, rest = std::exp(3.0);
  EXPECT_NEAR(out.host[0], (share * first + 2 * share * second + 4 * rest) / (share * sum + rest),
              1e-5);
}

// Context that counts as it is changes no bit, and sequences without context none either.
TEST_P(ConformanceContext, NothingScaledIsNothingChanged) {
  AttentionCase c;
  c.group = 3;
  Scene scene = MakeScene(*backend_, c, MixedSequences(20), random_);
  const auto plain = Attend(*backend_, scene);
  const auto first = static_cast<size_t>(scene.batch.sequences[0].row_end * c.q_width());
  MakeContext(&scene.batch, 1, 4, {0.7f, 0.8f}, false);
  const auto scaled = Attend(*backend_, scene);
  EXPECT_TRUE(std::equal(plain.begin() + std::ptrdiff_t(first), plain.end(),
                         scaled.begin() + std::ptrdiff_t(first)));
  EXPECT_FALSE(std::equal(plain.begin(), plain.begin() + std::ptrdiff_t(first), scaled.begin()));
  // Its pieces are cut elsewhere, so only values are equal.
  MakeContext(&scene.batch, 1, 4, {1, 1}, false);
  const auto same = Attend(*backend_, scene);
  for (size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(same[i], plain[i], 2 * scene.tolerance);
}

// A row's result does not depend on the rows beside it, nor on threads (split tiles).
TEST_P(ConformanceContext, RowsAloneAreTheSameBits) {
  AttentionCase c;
  c.group = 3;
  Scene scene = MakeScene(*backend_, c, {{{37, 600, 70, 100, 5}, {640, 700, 811}}}, random_);
  MakeContext(&scene.batch, 1, 4, {0.7f, 0.8f}, false);
  const auto all = Attend(*backend_, scene);
  for (int32_t row = 0; row < 3; ++row) {
    Scene alone = {c, RowAlone(scene.batch, 0, row, true), {}, {}, nullptr, 0, 0};
    alone.batch.sequences[0].context = scene.batch.sequences[0].context;
    const auto from = scene.q.begin() + std::ptrdiff_t(row * c.q_width());
    alone.q.assign(from, from + std::ptrdiff_t(c.q_width()));
    const auto got = RunAttention(*backend_, *scene.pool, 1, alone.batch, c, alone.q);
    EXPECT_EQ(std::memcmp(got.data(), all.data() + row * c.q_width(), got.size() * sizeof(float)),
              0)
        << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceContext, testing::ValuesIn(AttentionBackends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvasir
