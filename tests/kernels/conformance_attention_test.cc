// Conformance of attention: every present backend against the reference on the same KV, the
// reference against a formula with keys and queries at absolute positions, and what must hold bit
// for bit: a row's result depends on nothing but its own query and the keys that it may see.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/kernels/attention_scene.h"

namespace kvasir {
namespace {

using ConformanceAttention = Conformance;

void ExpectLikeReference(Backend& backend, Backend& reference, const AttentionCase& c,
                         const std::vector<SequenceSpec>& specs, std::mt19937& random) {
  SCOPED_TRACE(Describe(c));
  Scene scene = MakeScene(backend, c, specs, random);
  const auto got = Attend(backend, scene);
  auto pool = std::move(*reference.CreateKvPool({2, c.kv_heads, c.head_dim, DType::kF32}, kBlocks));
  LoadSegments(reference, *pool, 1, scene.batch, scene.kv);
  const auto want = RunAttention(reference, *pool, 1, scene.batch, c, scene.q);
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], scene.tolerance)
        << "row " << i / static_cast<size_t>(c.q_width()) << " column "
        << i % static_cast<size_t>(c.q_width());
  }
}

TEST_P(ConformanceAttention, HeadsAndDimensions) {
  for (const int32_t head_dim : {32, 64, 80, 128, 256}) {
    const Ropes ropes(head_dim);
    for (const int32_t group : {1, 3, 4, 8}) {
      AttentionCase c;
      c.head_dim = head_dim;
      c.group = group;
      c.kv_heads = 1 + static_cast<int32_t>(random_() % 3);
      c.dtype = kPoolTypes[random_() % 3];
      c.rope = ropes.all()[random_() % 5];
      ExpectLikeReference(*backend_, *reference_, c, MixedSequences(7), random_);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ConformanceAttention, OddHeadDimensionsOfTinyModels) {
  for (const int32_t head_dim : {2, 6, 8, 24, 40, 100}) {
    const Ropes ropes(head_dim);
    for (const DType dtype : kPoolTypes) {
      AttentionCase c;
      c.head_dim = head_dim;
      c.group = 2;
      c.dtype = dtype;
      c.rope = ropes.all()[1 + random_() % 4];
      ExpectLikeReference(*backend_, *reference_, c, MixedSequences(5), random_);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ConformanceAttention, RowsWindowsAndRopes) {
  const Ropes ropes(64);
  for (const int32_t rows : {1, 2, 3, 7, 17, 64, 130}) {
    for (const int32_t window : {0, 1, 33, 200}) {
      for (const DType dtype : kPoolTypes) {
        AttentionCase c;
        c.group = 3;
        c.window = window;
        c.dtype = dtype;
        c.rope = ropes.all()[random_() % 5];
        ExpectLikeReference(*backend_, *reference_, c, MixedSequences(rows), random_);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(ConformanceAttention, ManySegmentsOfRandomLengths) {
  const Ropes ropes(32);
  for (int trial = 0; trial < 6; ++trial) {
    std::vector<SequenceSpec> specs(1 + random_() % 3);
    for (SequenceSpec& spec : specs) {
      for (size_t s = 0; s < 1 + random_() % 12; ++s) {
        spec.segments.push_back(1 + static_cast<int32_t>(random_() % (trial < 3 ? 30 : 200)));
      }
      for (int32_t row = 0; row < TokensOf(spec); ++row) {
        if (random_() % 8 == 0 || row + 1 == TokensOf(spec)) spec.rows.push_back(row);
      }
    }
    AttentionCase c;
    c.head_dim = 32;
    c.group = 3;
    c.rope = ropes.all()[random_() % 5];
    c.window = trial % 2 == 0 ? 0 : 70;
    ExpectLikeReference(*backend_, *reference_, c, specs, random_);
    if (HasFatalFailure()) return;
  }
}

// Embedders: no rope, every row at the last position, so that all rows see all keys.
TEST_P(ConformanceAttention, EqualPositionsSeeEverything) {
  AttentionCase c;
  c.head_dim = 32;
  c.kv_heads = 2;
  Scene scene = MakeScene(*backend_, c, {{{45}, RowRange(0, 45)}}, random_);
  std::fill(scene.batch.positions.begin(), scene.batch.positions.end(), 44);
  const auto q = std::vector<float>(scene.q.begin(), scene.q.begin() + c.q_width());
  for (size_t row = 1; row < 45; ++row)
    std::copy(q.begin(), q.end(), scene.q.begin() + row * q.size());
  const auto out = Attend(*backend_, scene);
  for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], out[i % q.size()]);
  ASSERT_TRUE(std::isfinite(out[0]));
}

TEST_P(ConformanceAttention, ByHand) {
  // Two keys (1, 0) and (0, 1) with values (1, 10) and (3, 30); q = (ln 3, 0), scale 1: weights
  // 3/4 and 1/4.
  auto pool = std::move(*backend_->CreateKvPool({1, 1, 2, DType::kF32}, 2));
  const std::vector<float> k = {1, 0, 0, 1}, v = {1, 10, 3, 30};
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0, {DType::kF32, 2, k.data(), nullptr, v.data(), nullptr},
                           std::vector<int32_t>{1}, nullptr)
                  .ok());
  StepBatch batch;
  batch.token_ids = {0};
  batch.positions = batch.local_positions = {1};
  batch.slots = {17};
  batch.sequences = {{0, 1, 0, 1}};
  batch.segments = {{0, 2, 0}};
  batch.block_table = {1};
  Tensor q(*backend_, 1, 2, {std::log(3.0f), 0}), out(*backend_, 1, 2);
  const auto plan = backend_->PlanAttention(batch);
  backend_->Attention({pool.get(), 0, q.view(), 1.0f, 0, nullptr, &batch, plan.get(), out.view()});
  out.Pull();
  EXPECT_NEAR(out.host[0], 1.5, 1e-6);
  EXPECT_NEAR(out.host[1], 15, 1e-5);
}

// The rotation of queries per segment is equal to turning everything to absolute positions.
TEST_P(ConformanceAttention, QueryOffsetsEqualAbsolutePositions) {
  const Ropes ropes(64);
  for (const RopeTable* rope : {&ropes.interleaved, &ropes.half, &ropes.partial}) {
    SceneBuilder builder(kBlocks, random_);
    builder.Add({{2000, 19, 70}, {2088}});
    AttentionCase c;
    c.dtype = DType::kF32;
    c.rope = rope;
    auto pool = std::move(*backend_->CreateKvPool({1, 1, 64, DType::kF32}, kBlocks));
    std::vector<float> keys, values;
    for (const SegmentRef& segment : builder.batch.segments) {
      const size_t count = static_cast<size_t>(segment.length) * 64;
      const auto k = Normal(count, random_), v = Normal(count, random_);
      EXPECT_TRUE(backend_
                      ->LoadKv(*pool, 0,
                               {DType::kF32, segment.length, k.data(), nullptr, v.data(), nullptr},
                               BlocksOf(builder.batch, segment), rope)
                      .ok());
      keys.insert(keys.end(), k.begin(), k.end());
      values.insert(values.end(), v.begin(), v.end());
    }
    const auto q = Normal(64, random_);
    const auto got = RunAttention(*backend_, *pool, 0, builder.batch, c, q);
    std::vector<float> turned = q;
    rope->Rotate(2088, turned.data());
    std::vector<double> sum(64, 0.0);
    double total = 0;
    for (int64_t j = 0; j < 2089; ++j) {
      float* key = &keys[static_cast<size_t>(j * 64)];
      rope->Rotate(j, key);
      double score = 0;
      for (int d = 0; d < 64; ++d) score += double{turned[static_cast<size_t>(d)]} * key[d];
      const double weight = std::exp(score * c.scale());
      total += weight;
      for (size_t d = 0; d < 64; ++d) {
        sum[d] += weight * values[static_cast<size_t>(j * 64) + d];
      }
    }
    // As AttentionTolerance, with keys and queries each turned once more in fp32 by either way.
    const double tolerance = AttentionTolerance(c, q, {{keys, values}}, 2089) * 1.25;
    for (size_t d = 0; d < 64; ++d) ASSERT_NEAR(got[d], sum[d] / total, tolerance);
  }
}

TEST_P(ConformanceAttention, BitsOfARowAloneAndInAnyBatch) {
  const Ropes ropes(64);
  for (const DType dtype : kPoolTypes) {
    for (const int32_t window : {0, 150}) {
      AttentionCase c;
      c.dtype = dtype;
      c.group = 3;
      c.kv_heads = 2;
      c.window = window;
      c.rope = &ropes.interleaved;
      // Long enough for several splits; prefill, scattered rows and decode in one batch.
      std::vector<SequenceSpec> specs = {{{700, 33, 500, 90}, RowRange(1233, 1323)},
                                         {{300, 256, 256}, {}},
                                         {{900, 7}, {906}},
                                         {{50}, RowRange(0, 50)}};
      for (int32_t row = 5; row < 812; row += 61) specs[1].rows.push_back(row);
      Scene scene = MakeScene(*backend_, c, specs, random_);
      const auto all = Attend(*backend_, scene);
      for (const int threads : {1, 3}) {
        const auto again = Attend(*GetParam().make(threads), scene);
        ASSERT_EQ(std::memcmp(again.data(), all.data(), all.size() * 4), 0) << threads;
      }
      for (size_t s = 0; s < specs.size(); ++s) {
        const SequenceSpan& span = scene.batch.sequences[s];
        for (int32_t row = span.row_begin; row < span.row_end; row += 1 + (row % 4)) {
          const auto begin = scene.q.begin() + row * c.q_width();
          const std::vector<float> q(begin, begin + c.q_width());
          for (const bool cut : {false, true}) {
            const StepBatch alone = RowAlone(scene.batch, s, row, cut);
            const auto one = RunAttention(*backend_, *scene.pool, 1, alone, c, q);
            ASSERT_EQ(std::memcmp(one.data(), &all[static_cast<size_t>(row * c.q_width())],
                                  one.size() * 4),
                      0)
                << Describe(c) << " sequence " << s << " row " << row << " cut " << cut;
          }
        }
      }
    }
  }
}

// Sequences over the same blocks, at the same base and at different ones, a few rows each: what is
// read once for all of them gives every row the bits that it has alone.
TEST_P(ConformanceAttention, SharedBlocksGiveTheSameBits) {
  const Ropes ropes(64);
  const std::vector<SequenceSpec> specs = {
      {{600, 30}, {629}},           {{600, 41}, {640}},      {{600, 8}, {604, 607}},
      {{500, 600, 9}, {1108}},      {{512, 600, 3}, {1114}}, {{600, 90}, {650, 660, 670, 689}},
      {{600, 90}, RowRange(0, 690)}};
  for (const int32_t window : {0, 300}) {
    for (const RopeTable* rope : {&ropes.half, &ropes.interleaved}) {
      AttentionCase c;
      c.kv_heads = 2;
      c.group = 3;
      c.rope = rope;
      c.window = window;
      Scene scene = MakeScene(*backend_, c, specs, random_);
      StepBatch& batch = scene.batch;
      for (const SegmentRef& segment : batch.segments) {
        if (segment.length != 600) continue;
        std::copy_n(batch.block_table.begin(), BlocksFor(600),
                    batch.block_table.begin() + segment.first_block);
      }
      const auto all = Attend(*backend_, scene);
      const auto again = Attend(*GetParam().make(5), scene);
      ASSERT_EQ(std::memcmp(again.data(), all.data(), all.size() * 4), 0);
      for (size_t s = 0; s < specs.size(); ++s) {
        const SequenceSpan& span = batch.sequences[s];
        for (int32_t row = span.row_begin; row < span.row_end; row += s == 6 ? 61 : 1) {
          const auto begin = scene.q.begin() + row * c.q_width();
          const auto one = RunAttention(*backend_, *scene.pool, 1, RowAlone(batch, s, row, false),
                                        c, {begin, begin + c.q_width()});
          ASSERT_EQ(
              std::memcmp(one.data(), &all[static_cast<size_t>(row * c.q_width())], one.size() * 4),
              0)
              << Describe(c) << " sequence " << s << " row " << row;
        }
      }
    }
  }
}

// A change of a later key and value changes no earlier row, even to NaN where nobody may look.
TEST_P(ConformanceAttention, LaterKeysDoNotLeak) {
  AttentionCase c;
  c.group = 3;
  const Ropes ropes(64);
  c.rope = &ropes.half;
  const std::vector<SequenceSpec> specs = {{{100, 90, 30}, {20, 99, 120, 121}}};
  Scene scene = MakeScene(*backend_, c, specs, random_);
  const auto before = Attend(*backend_, scene);
  // Everything behind position 121 (local 21 of the second segment) becomes NaN.
  for (auto& kv : {&scene.kv[1], &scene.kv[2]}) {
    const size_t from = kv == &scene.kv[1] ? 22 * 64 : 0;
    std::fill(kv->k.begin() + from, kv->k.end(), NAN);
    std::fill(kv->v.begin() + from, kv->v.end(), NAN);
  }
  LoadSegments(*backend_, *scene.pool, 1, scene.batch, scene.kv);
  const auto after = Attend(*backend_, scene);
  ASSERT_EQ(std::memcmp(before.data(), after.data(), before.size() * 4), 0);
}

// Slots behind a segment's end may hold anything: another request's leavings, NaN among them.
TEST_P(ConformanceAttention, SlotsBehindTheEndAreNotRead) {
  AttentionCase c;
  for (const int32_t length : {1, 2, 7, 16, 33, 63}) {
    SceneBuilder builder(kBlocks, random_);
    builder.Add({{length}, {length - 1}});
    auto pool = std::move(*backend_->CreateKvPool({1, 1, 64, DType::kBF16}, kBlocks));
    const auto blocks = BlocksOf(builder.batch, builder.batch.segments[0]);
    const std::vector<float> nan(blocks.size() * 16 * 64, NAN);
    EXPECT_TRUE(backend_
                    ->LoadKv(*pool, 0,
                             {DType::kF32, static_cast<int32_t>(blocks.size()) * 16, nan.data(),
                              nullptr, nan.data(), nullptr},
                             blocks, nullptr)
                    .ok());
    // Rows are appended one by one, as decoding does.
    for (int32_t t = 0; t < length; ++t) {
      StepBatch step = builder.batch;
      step.local_positions = {t};
      step.slots = {blocks[static_cast<size_t>(t / 16)] * 16 + t % 16};
      Tensor k(*backend_, 1, 64, Normal(64, random_)), v(*backend_, 1, 64, Normal(64, random_));
      backend_->AppendKv(*pool, 0, k.view(), v.view(), step, nullptr);
    }
    for (const float x : RunAttention(*backend_, *pool, 0, builder.batch, c, Normal(64, random_))) {
      ASSERT_TRUE(std::isfinite(x)) << "length " << length;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceAttention, testing::ValuesIn(AttentionBackends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvasir
