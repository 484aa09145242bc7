// Conformance of AttentionArgs::mass: every present backend against the reference, a case by hand,
// and what must hold bit for bit: gathering changes no output, and a row's weights depend on
// nothing but its own query and the keys that it sees.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/kernels/attention_scene.h"

namespace kvasir {
namespace {

using ConformanceMass = Conformance;

// Rows [begin, end) of a scene's batch with the memory for their weights, [H][stride].
struct Watch {
  Watch(const Scene& scene, int32_t begin, int32_t end)
      : begin(begin), end(end), heads(scene.c.kv_heads * scene.c.group) {
    const auto rows = scene.batch.positions.begin();
    stride = *std::max_element(rows + begin, rows + end) + 1;
    mass.assign(static_cast<size_t>(heads * stride), 0.0f);
  }
  MassRange range() { return {begin, end, mass.data(), stride}; }
  double SumOf(int32_t head) const {
    const auto first = mass.begin() + head * stride;
    return std::accumulate(first, first + stride, 0.0);
  }

  int32_t begin, end, heads;
  int64_t stride;
  std::vector<float> mass;
};

std::vector<MassRange> RangesOf(std::vector<Watch>& watches) {
  std::vector<MassRange> ranges;
  for (Watch& watch : watches) ranges.push_back(watch.range());
  return ranges;
}

// For every sequence of the scene some rows: its middle, its end or all.
std::vector<Watch> WatchSome(const Scene& scene, std::mt19937& random) {
  std::vector<Watch> watches;
  for (const SequenceSpan& span : scene.batch.sequences) {
    const int32_t rows = span.row_end - span.row_begin;
    const auto first = static_cast<int32_t>(random() % static_cast<uint32_t>(rows));
    const auto count = 1 + static_cast<int32_t>(random() % static_cast<uint32_t>(rows - first));
    watches.emplace_back(scene, span.row_begin + first, span.row_begin + first + count);
  }
  return watches;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Weights are off by a share of themselves (WeightTolerance) and by a rounding a row; those below
// the least normal number may be flushed to zero.
void ExpectClose(const Watch& got, const Watch& want, double tolerance) {
  const int32_t rows = want.end - want.begin;
  for (size_t i = 0; i < want.mass.size(); ++i) {
    const double expected = want.mass[i];
    ASSERT_NEAR(got.mass[i], expected, expected * (tolerance + 2 * rows * kUnit) + rows * 0x1p-125)
        << "rows " << want.begin << " to " << want.end << " head "
        << i / static_cast<size_t>(want.stride) << " position "
        << i % static_cast<size_t>(want.stride);
  }
}

// Like the reference; outputs as without; a row that sees a key gives weights that sum to 1.
void ExpectMassLikeReference(Backend& backend, Backend& reference, const AttentionCase& c,
                             const std::vector<SequenceSpec>& specs, std::mt19937& random) {
  SCOPED_TRACE(Describe(c));
  Scene scene = MakeScene(backend, c, specs, random);
  std::vector<Watch> got = WatchSome(scene, random), want = got;
  const auto plain = Attend(backend, scene);
  ASSERT_TRUE(SameBits(plain, Attend(backend, scene, RangesOf(got))));
  auto pool = std::move(*reference.CreateKvPool({2, c.kv_heads, c.head_dim, DType::kF32}, kBlocks));
  LoadSegments(reference, *pool, 1, scene.batch, scene.kv);
  RunAttention(reference, *pool, 1, scene.batch, c, scene.q, RangesOf(want));
  for (size_t i = 0; i < got.size(); ++i) {
    ExpectClose(got[i], want[i], scene.weight_tolerance);
    if (testing::Test::HasFatalFailure()) return;
    const double rows = got[i].end - got[i].begin;
    for (int32_t head = 0; head < got[i].heads; ++head) {
      ASSERT_NEAR(got[i].SumOf(head), rows, rows * (scene.weight_tolerance + 2 * rows * kUnit));
    }
  }
}

TEST_P(ConformanceMass, HeadsAndDimensions) {
  for (const int32_t head_dim : {8, 64, 100, 256}) {
    const Ropes ropes(head_dim);
    for (const int32_t group : {1, 3, 4, 8}) {
      for (const DType dtype : kPoolTypes) {
        AttentionCase c;
        c.head_dim = head_dim;
        c.group = group;
        c.kv_heads = 1 + static_cast<int32_t>(random_() % 3);
        c.dtype = dtype;
        c.rope = ropes.all()[random_() % 5];
        ExpectMassLikeReference(*backend_, *reference_, c, MixedSequences(7), random_);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(ConformanceMass, RowsWindowsAndSegments) {
  const Ropes ropes(64);
  for (const int32_t rows : {1, 17, 70}) {
    for (const int32_t window : {0, 1, 33, 200}) {
      for (const DType dtype : kPoolTypes) {
        AttentionCase c;
        c.group = 3;
        c.kv_heads = 2;
        c.window = window;
        c.dtype = dtype;
        c.rope = ropes.all()[random_() % 5];
        ExpectMassLikeReference(*backend_, *reference_, c, MixedSequences(rows), random_);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Few rows and many keys: tiles are split among threads. Then so many watched rows that their
// scores are kept in several waves.
TEST_P(ConformanceMass, ManyKeys) {
  const Ropes ropes(64);
  for (const int32_t rows : {1, 5, 40}) {
    for (const int32_t window : {0, 900}) {
      AttentionCase c;
      c.group = 4;
      c.kv_heads = 2;
      c.window = window;
      c.rope = &ropes.half;
      const std::vector<SequenceSpec> specs = {{{1500, 77, 900, 100}, RowRange(2577 - rows, 2577)}};
      ExpectMassLikeReference(*backend_, *reference_, c, specs, random_);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ConformanceMass, ByHand) {
  // Keys (1, 0) at positions 5 and 7, (0, 1) at 6; q = (ln 3, 0) at 6, then (0, ln 2) at 7, scale
  // 1. Weights: 3/4, 1/4 and then 1/4, 2/4, 1/4. With a window of 1 each sees itself alone.
  auto pool = std::move(*backend_->CreateKvPool({1, 1, 2, DType::kF32}, 3));
  const std::vector<float> k = {1, 0, 0, 1, 1, 0}, v = {1, 10, 3, 30, 7, 7};
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0, {DType::kF32, 2, k.data(), nullptr, v.data(), nullptr},
                           std::vector<int32_t>{1}, nullptr)
                  .ok());
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0, {DType::kF32, 1, k.data() + 4, nullptr, v.data() + 4, nullptr},
                           std::vector<int32_t>{2}, nullptr)
                  .ok());
  StepBatch batch;
  batch.token_ids = {0, 0};
  batch.positions = {6, 7};
  batch.local_positions = {1, 0};
  batch.slots = {17, 32};
  batch.sequences = {{0, 2, 0, 2}};
  batch.segments = {{5, 2, 0}, {7, 1, 1}};
  batch.block_table = {1, 2};
  Tensor q(*backend_, 2, 2, {std::log(3.0f), 0, 0, std::log(2.0f)}), out(*backend_, 2, 2);
  const auto plan = backend_->PlanAttention(batch);
  AttentionArgs args = {pool.get(), 0,      q.view(),   1.0f,       0,
                        nullptr,    &batch, plan.get(), out.view(), {}};
  const auto gather = [&](int32_t begin, int32_t end, int32_t window) {
    std::vector<float> mass(9, 0.0f);
    mass[8] = 42;  // behind the stride
    const MassRange range = {begin, end, mass.data(), 8};
    args.mass = {&range, 1};
    args.window = window;
    backend_->Attention(args);
    return mass;
  };
  const auto expect = [](const std::vector<float>& got, const std::vector<double>& want) {
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6) << "position " << i;
    EXPECT_EQ(got[8], 42);
  };
  expect(gather(0, 1, 0), {0, 0, 0, 0, 0, .75, .25, 0});
  expect(gather(1, 2, 0), {0, 0, 0, 0, 0, .25, .5, .25});
  expect(gather(0, 2, 0), {0, 0, 0, 0, 0, 1, .75, .25});
  expect(gather(0, 2, 1), {0, 0, 0, 0, 0, 0, 1, 1});
  expect(gather(1, 1, 0), {0, 0, 0, 0, 0, 0, 0, 0});
}

// Two segments at one base: both keys add to the same positions.
TEST_P(ConformanceMass, ParallelSegmentsAddUp) {
  AttentionCase c;
  c.head_dim = 32;
  Scene scene = MakeScene(*backend_, c, {{{20, 20, 3}, {42}}}, random_);
  Watch apart(scene, 0, 1);
  Attend(*backend_, scene, std::vector<MassRange>{apart.range()});
  scene.batch.segments[1].base = 0;  // no rope: the scores stay as they are
  Watch together(scene, 0, 1);
  Attend(*backend_, scene, std::vector<MassRange>{together.range()});
  for (size_t i = 0; i < 20; ++i) {
    ASSERT_FLOAT_EQ(together.mass[i], apart.mass[i] + apart.mass[i + 20]);
    ASSERT_EQ(together.mass[i + 20], 0);
  }
}

// The scene of the tests below: several splits, prefill, scattered rows and decode in one batch.
Scene MixedScene(Backend& backend, const Ropes& ropes, DType dtype, int32_t window,
                 std::mt19937& random) {
  AttentionCase c;
  c.dtype = dtype;
  c.group = 3;
  c.kv_heads = 2;
  c.window = window;
  c.rope = &ropes.interleaved;
  std::vector<SequenceSpec> specs = {{{900, 7}, {906}},
                                     {{700, 33, 500, 90}, RowRange(1233, 1323)},
                                     {{300, 256, 256}, {}},
                                     {{50}, RowRange(0, 50)}};
  for (int32_t row = 5; row < 812; row += 61) specs[2].rows.push_back(row);
  return MakeScene(backend, c, specs, random);
}

TEST_P(ConformanceMass, BitsOfARowAloneAndInAnyBatch) {
  const Ropes ropes(64);
  for (const DType dtype : kPoolTypes) {
    const int32_t window = dtype == DType::kF32 ? 0 : 150;
    const Scene scene = MixedScene(*backend_, ropes, dtype, window, random_);
    std::vector<Watch> in_batch;
    for (int32_t row = 0; row < scene.batch.rows(); row += 1 + row % 7) {
      in_batch.emplace_back(scene, row, row + 1);
    }
    std::vector<Watch> alone = in_batch;
    Attend(*backend_, scene, RangesOf(in_batch));
    for (size_t i = 0; i < alone.size(); ++i) {
      const int32_t row = alone[i].begin;
      size_t sequence = 0;
      while (scene.batch.sequences[sequence].row_end <= row) ++sequence;
      const auto begin = scene.q.begin() + row * scene.c.q_width();
      const std::vector<float> q(begin, begin + scene.c.q_width());
      const MassRange range = {0, 1, alone[i].mass.data(), alone[i].stride};
      RunAttention(*backend_, *scene.pool, 1, RowAlone(scene.batch, sequence, row, row % 2 == 0),
                   scene.c, q, {&range, 1});
      ASSERT_TRUE(SameBits(in_batch[i].mass, alone[i].mass)) << "row " << row;
    }
  }
}

// The sum over a range is the fp32 sum of its rows' weights, one after the other, with any number
// of threads and however the range is cut.
TEST_P(ConformanceMass, BitsOfARangeAreThoseOfItsRowsInOrder) {
  const Ropes ropes(64);
  const Scene scene = MixedScene(*backend_, ropes, DType::kBF16, 600, random_);
  const SequenceSpan& span = scene.batch.sequences[1];
  const int32_t begin = span.row_begin + 3, end = span.row_end - 5;
  Watch want(scene, begin, end);
  std::vector<Watch> rows;
  for (int32_t row = begin; row < end; ++row) rows.emplace_back(scene, row, row + 1);
  const auto out = Attend(*backend_, scene, RangesOf(rows));
  for (const Watch& row : rows) {
    for (size_t i = 0; i < row.mass.size(); ++i) {
      const size_t head = i / static_cast<size_t>(row.stride);
      want.mass[head * static_cast<size_t>(want.stride) + i % static_cast<size_t>(row.stride)] +=
          row.mass[i];
    }
  }
  for (const int threads : {1, 2, 7}) {
    Watch got(scene, begin, end);
    const auto again =
        Attend(*GetParam().make(threads), scene, std::vector<MassRange>{got.range()});
    ASSERT_TRUE(SameBits(got.mass, want.mass)) << threads << " threads";
    ASSERT_TRUE(SameBits(again, out)) << threads << " threads";
  }
  Watch cut(scene, begin, end);
  const MassRange first = {begin, begin + 29, cut.mass.data(), cut.stride};
  const MassRange second = {begin + 29, end, cut.mass.data(), cut.stride};
  Attend(*backend_, scene, std::vector<MassRange>{first, second});
  ASSERT_TRUE(SameBits(cut.mass, want.mass));
  std::fill(cut.mass.begin(), cut.mass.end(), 0.0f);
  for (const MassRange& range : {first, second}) Attend(*backend_, scene, {&range, 1});
  ASSERT_TRUE(SameBits(cut.mass, want.mass));
}

// What nobody may look at adds nothing, even if it is NaN: later keys, slots behind the end.
TEST_P(ConformanceMass, LaterKeysDoNotLeak) {
  AttentionCase c;
  c.group = 3;
  c.window = 100;
  Scene scene = MakeScene(*backend_, c, {{{100, 90, 30}, {20, 99, 120, 121}}}, random_);
  Watch before(scene, 0, 4), after = before;
  Attend(*backend_, scene, std::vector<MassRange>{before.range()});
  std::fill(scene.kv[1].k.begin() + 22 * 64, scene.kv[1].k.end(), NAN);
  std::fill(scene.kv[2].k.begin(), scene.kv[2].k.end(), NAN);
  LoadSegments(*backend_, *scene.pool, 1, scene.batch, scene.kv);
  Attend(*backend_, scene, std::vector<MassRange>{after.range()});
  ASSERT_TRUE(SameBits(before.mass, after.mass));
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceMass, testing::ValuesIn(AttentionBackends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvasir
