// Conformance of the KV operators: what AppendKv, LoadKv, CopyBlock, SaveKv and ReadKv store and
// return, on every present backend, against values worked out in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "tests/kernels/conformance_fixture.h"

namespace kvasir {
namespace {

using ConformanceKv = Conformance;

constexpr int32_t kBlocks = 64;

// A rotation in fp32 of a pair (a, b) is off by at most 4 u (|a| + |b|): cos, sin, two products,
// one sum. bf16 with its 8 bits then rounds by at most 2^-8 of the value, int8 by half of 1/127 of
// the largest of its group (1 % for the turned value's own error).
void ExpectStored(float got, double want, double pair, double top, DType dtype) {
  double store = dtype == DType::kBF16 ? 0x1p-8 * std::abs(want) : 0;
  if (dtype == DType::kI8) store = 0.5 / 127 * top;
  ASSERT_NEAR(got, want, 4 * kUnit * pair + store * 1.01 + 1e-37);
}

// Element d of x [D] turned by `position`; *pair = the magnitudes that went into it.
double Turned(const RopeTable* rope, int64_t position, const float* x, int32_t d, double* pair) {
  *pair = std::abs(x[d]);
  if (rope == nullptr || d >= rope->rotary_dims) return x[d];
  const int32_t half = rope->rotary_dims / 2;
  const bool interleaved = rope->pairing == RopePairing::kInterleaved;
  const bool first = interleaved ? d % 2 == 0 : d < half;
  const int32_t other = interleaved ? d ^ 1 : (first ? d + half : d - half);
  const int32_t j = interleaved ? d / 2 : d % half;
  const double angle = static_cast<double>(position) * rope->inv_freq[static_cast<size_t>(j)];
  *pair = (std::abs(x[d]) + std::abs(x[other])) * std::abs(rope->magnitude);
  const double c = std::cos(angle) * rope->magnitude, s = std::sin(angle) * rope->magnitude;
  return first ? x[d] * c - x[other] * s : x[d] * c + x[other] * s;
}

struct Stored {
  std::vector<float> k, v;  // [tokens][G][D]
};

Stored Read(Backend& backend, const KvPool& pool, int32_t layer, const std::vector<int32_t>& blocks,
            int32_t tokens) {
  const auto count = static_cast<size_t>(tokens) *
                     static_cast<size_t>(pool.layout().kv_heads * pool.layout().head_dim);
  Stored stored{std::vector<float>(count, NAN), std::vector<float>(count, NAN)};
  EXPECT_TRUE(backend.ReadKv(pool, layer, blocks, tokens, stored.k.data(), stored.v.data()).ok());
  return stored;
}

// Head x [D] of a token: what the pool should hold.
struct WantedHead {
  std::vector<double> values, pairs;
  double Top(int32_t begin, int32_t end) const {
    double top = 0;
    for (int32_t d = begin; d < end; ++d) top = std::max(top, std::abs(values[d]));
    return top;
  }
};

WantedHead Wanted(const RopeTable* rope, int64_t position, const float* x, int32_t head_dim) {
  WantedHead head{std::vector<double>(head_dim), std::vector<double>(head_dim)};
  for (int32_t d = 0; d < head_dim; ++d) {
    head.values[d] = Turned(rope, position, x, d, &head.pairs[d]);
  }
  return head;
}

void ExpectTokens(const Stored& stored, const std::vector<float>& k, const std::vector<float>& v,
                  const KvLayout& layout, const RopeTable* rope) {
  const int32_t head_dim = layout.head_dim;
  for (size_t at = 0; at < k.size(); at += static_cast<size_t>(head_dim)) {
    const auto token = static_cast<int64_t>(at) / (head_dim * layout.kv_heads);
    const WantedHead key = Wanted(rope, token, &k[at], head_dim);
    const WantedHead value = Wanted(nullptr, token, &v[at], head_dim);
    for (int32_t d = 0; d < head_dim; ++d) {
      SCOPED_TRACE(testing::Message() << "token " << token << " d " << d);
      const int32_t group = d / kKeyScaleDims * kKeyScaleDims;
      const double top = key.Top(group, std::min(group + kKeyScaleDims, head_dim));
      const auto i = at + static_cast<size_t>(d);
      ExpectStored(stored.k[i], key.values[d], key.pairs[d], top, layout.dtype);
      ExpectStored(stored.v[i], v[i], 0, value.Top(0, head_dim), layout.dtype);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

std::vector<RopeTable> RopesOf(int32_t head_dim) {
  std::vector<RopeTable> ropes = {
      RopeTable::Plain(RopePairing::kInterleaved, head_dim, 10000),
      RopeTable::Plain(RopePairing::kHalfSplit, head_dim, 10000),
      RopeTable::Plain(RopePairing::kHalfSplit, head_dim / 4 * 2, 10000),
      RopeTable::Plain(RopePairing::kInterleaved, head_dim / 4 * 2, 10000)};
  ropes[1].magnitude = 0.75f;
  return ropes;
}

TEST_P(ConformanceKv, LoadEveryStoredType) {
  for (const int32_t head_dim : {2, 32, 64, 72, 80, 128, 256}) {
    const auto ropes = RopesOf(head_dim);
    for (const DType dtype : kPoolTypes) {
      for (const DType stored : {DType::kF32, DType::kF16, DType::kI8}) {
        const KvLayout layout{2, 3, head_dim, dtype};
        auto pool = std::move(*backend_->CreateKvPool(layout, kBlocks));
        const auto tokens = static_cast<int32_t>(1 + random_() % 70);
        std::vector<int32_t> blocks(static_cast<size_t>(BlocksFor(tokens)));
        for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = kBlocks - 1 - 3 * i;
        const size_t width = static_cast<size_t>(3 * head_dim), count = width * tokens;
        std::vector<float> k = Normal(count, random_), v = Normal(count, random_);
        const auto k_scale = Normal(width, random_, 0.02f);
        const auto v_scale = Normal(static_cast<size_t>(tokens) * 3, random_, 0.02f);
        std::vector<int8_t> k8(count), v8(count);
        std::vector<uint16_t> k16(count), v16(count);
        KvLayerPlanes planes{stored, tokens, k.data(), nullptr, v.data(), nullptr};
        for (size_t i = 0; i < count && stored != DType::kF32; ++i) {
          k8[i] = static_cast<int8_t>(random_());
          v8[i] = static_cast<int8_t>(random_());
          k16[i] = F32ToF16(k[i]);
          v16[i] = F32ToF16(v[i]);
          k[i] = stored == DType::kF16 ? F16ToF32(k16[i]) : k8[i] * k_scale[i % width];
          v[i] = stored == DType::kF16 ? F16ToF32(v16[i])
                                       : v8[i] * v_scale[i / static_cast<size_t>(head_dim)];
        }
        if (stored == DType::kF16) planes.k = k16.data(), planes.v = v16.data();
        if (stored == DType::kI8) {
          planes = {stored, tokens, k8.data(), k_scale.data(), v8.data(), v_scale.data()};
        }
        const RopeTable* rope = random_() % 5 == 0 ? nullptr : &ropes[random_() % 4];
        EXPECT_TRUE(backend_->LoadKv(*pool, 1, planes, blocks, rope).ok());
        SCOPED_TRACE(testing::Message() << head_dim << " " << TraitsOf(dtype).name << " from "
                                        << TraitsOf(stored).name << " tokens " << tokens);
        ExpectTokens(Read(*backend_, *pool, 1, blocks, tokens), k, v, layout, rope);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Random planes of four bits. Grids are multiples of 2^-10, so that low + q * step is a number of
// 14 bits: every way to work it out is exact, and only rotation and storing round.
class Int4Planes {
 public:
  Int4Planes(int32_t tokens, int32_t heads, int32_t head_dim, std::mt19937& random)
      : k(static_cast<size_t>(tokens * heads * head_dim)), v(k.size()) {
    const auto width = static_cast<size_t>(heads * head_dim), dim = static_cast<size_t>(head_dim);
    FillGrid(static_cast<size_t>(Int4GroupsFor(tokens)) * width, random, &k_step_, &k_low_);
    FillGrid(k.size() / dim, random, &v_step_, &v_low_);
    for (size_t i = 0; i < k.size(); i += 2) {
      k_.push_back(static_cast<uint8_t>(random()));
      v_.push_back(static_cast<uint8_t>(random()));
    }
    for (size_t i = 0; i < k.size(); ++i) {
      const size_t at = i / width / kInt4GroupTokens * width + i % width;
      k[i] = Value(k_[i / 2], i, k_step_[at], k_low_[at]);
      v[i] = Value(v_[i / 2], i, v_step_[i / dim], v_low_[i / dim]);
    }
    planes.dtype = DType::kI4;
    planes.tokens = tokens;
    planes.k = k_.data();
    planes.v = v_.data();
    planes.k_grid = {k_step_.data(), k_low_.data()};
    planes.v_grid = {v_step_.data(), v_low_.data()};
  }

  std::vector<float> k, v;  // what they stand for, [tokens][G][D]
  KvLayerPlanes planes;

 private:
  static void FillGrid(size_t count, std::mt19937& random, std::vector<uint16_t>* step,
                       std::vector<uint16_t>* low) {
    for (size_t i = 0; i < count; ++i) {
      step->push_back(F32ToF16(static_cast<float>(random() % 256) / 1024));
      low->push_back(F32ToF16(static_cast<float>(static_cast<int>(random() % 4096) - 2048) / 1024));
    }
  }
  static float Value(uint8_t pair, size_t i, uint16_t step, uint16_t low) {
    return F16ToF32(low) + F16ToF32(step) * static_cast<float>(i % 2 == 0 ? pair % 16 : pair / 16);
  }

  std::vector<uint8_t> k_, v_;
  std::vector<uint16_t> k_step_, k_low_, v_step_, v_low_;
};

TEST_P(ConformanceKv, LoadFourBits) {
  for (const int32_t head_dim : {2, 6, 32, 64, 72, 80, 128, 256}) {
    const auto ropes = RopesOf(head_dim);
    for (const DType dtype : kPoolTypes) {
      for (const int32_t tokens : {1, 66}) {
        const KvLayout layout{2, 3, head_dim, dtype};
        auto pool = std::move(*backend_->CreateKvPool(layout, kBlocks));
        std::vector<int32_t> blocks(static_cast<size_t>(BlocksFor(tokens)));
        for (size_t i = 0; i < blocks.size(); ++i) {
          blocks[i] = kBlocks - 1 - 3 * static_cast<int32_t>(i);
        }
        const Int4Planes stored(tokens, 3, head_dim, random_);
        const RopeTable* rope = random_() % 5 == 0 ? nullptr : &ropes[random_() % 4];
        EXPECT_TRUE(backend_->LoadKv(*pool, 1, stored.planes, blocks, rope).ok());
        SCOPED_TRACE(testing::Message()
                     << head_dim << " " << TraitsOf(dtype).name << " " << tokens);
        ExpectTokens(Read(*backend_, *pool, 1, blocks, tokens), stored.k, stored.v, layout, rope);
        if (HasFatalFailure()) return;
      }
    }
  }
}

// Rows of one sequence in batches of several sizes, one call or many: the same bits, and right.
TEST_P(ConformanceKv, AppendInAnyBatch) {
  for (const int32_t head_dim : {6, 64, 80}) {
    for (const DType dtype : kPoolTypes) {
      const auto ropes = RopesOf(head_dim);
      const RopeTable* rope = &ropes[random_() % 4];
      const KvLayout layout{1, 3, head_dim, dtype};
      auto pool = std::move(*backend_->CreateKvPool(layout, kBlocks));
      auto pool2 = std::move(*backend_->CreateKvPool(layout, kBlocks));
      SceneBuilder builder(kBlocks, random_);
      constexpr int32_t kTokens = 300;
      builder.Add({{kTokens}, RowRange(0, kTokens)});
      const StepBatch& batch = builder.batch;
      const int64_t width = 3 * head_dim;
      Tensor k(*backend_, kTokens, width, Normal(static_cast<size_t>(kTokens * width), random_));
      Tensor v(*backend_, kTokens, width, Normal(static_cast<size_t>(kTokens * width), random_));
      backend_->AppendKv(*pool, 0, k.view(), v.view(), batch, rope);
      for (int32_t row = 0; row < kTokens;) {
        const int32_t rows = std::min<int32_t>(1 + random_() % 90, kTokens - row);
        StepBatch part;
        const auto take = [&](const std::vector<int32_t>& from) {
          return std::vector<int32_t>(from.begin() + row, from.begin() + row + rows);
        };
        part.token_ids = take(batch.token_ids);
        part.positions = take(batch.positions);
        part.local_positions = take(batch.local_positions);
        part.slots = take(batch.slots);
        backend_->AppendKv(*pool2, 0, RowsOf(k.view(), row, rows), RowsOf(v.view(), row, rows),
                           part, rope);
        row += rows;
      }
      const auto blocks = BlocksOf(batch, batch.segments[0]);
      const Stored one = Read(*backend_, *pool, 0, blocks, kTokens);
      const Stored many = Read(*backend_, *pool2, 0, blocks, kTokens);
      ASSERT_EQ(std::memcmp(one.k.data(), many.k.data(), one.k.size() * 4), 0);
      ASSERT_EQ(std::memcmp(one.v.data(), many.v.data(), one.v.size() * 4), 0);
      ExpectTokens(one, k.host, v.host, layout, rope);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(ConformanceKv, AppendedOrLoadedIsTheSame) {
  for (const DType dtype : kPoolTypes) {
    for (const int32_t head_dim : {40, 64, 96}) {
      const KvLayout layout{1, 2, head_dim, dtype};
      const auto rope = RopeTable::Plain(RopePairing::kInterleaved, head_dim, 10000);
      auto pool = std::move(*backend_->CreateKvPool(layout, kBlocks));
      SceneBuilder builder(kBlocks, random_);
      builder.Add({{37}, RowRange(0, 37)});
      const auto count = static_cast<size_t>(37 * 2 * head_dim);
      Tensor k(*backend_, 37, 2 * head_dim, Normal(count, random_));
      Tensor v(*backend_, 37, 2 * head_dim, Normal(count, random_));
      backend_->AppendKv(*pool, 0, k.view(), v.view(), builder.batch, &rope);
      const auto blocks = BlocksOf(builder.batch, builder.batch.segments[0]);
      const Stored appended = Read(*backend_, *pool, 0, blocks, 37);
      EXPECT_TRUE(backend_
                      ->LoadKv(*pool, 0,
                               {DType::kF32, 37, k.host.data(), nullptr, v.host.data(), nullptr},
                               blocks, &rope)
                      .ok());
      const Stored loaded = Read(*backend_, *pool, 0, blocks, 37);
      EXPECT_EQ(appended.k, loaded.k);
      EXPECT_EQ(appended.v, loaded.v);
    }
  }
}

// Values that were stored with the pool's own scale come into an int8 pool as they are.
TEST_P(ConformanceKv, StoredInt8ValuesStayAsTheyAre) {
  const KvLayout layout{1, 2, 64, DType::kI8};
  auto pool = std::move(*backend_->CreateKvPool(layout, 4));
  constexpr int32_t kTokens = 35;
  std::vector<int8_t> bytes(kTokens * 128);
  for (int8_t& byte : bytes) byte = static_cast<int8_t>(static_cast<int>(random_() % 255) - 127);
  for (size_t at = 0; at < bytes.size(); at += 64) bytes[at + random_() % 64] = 127;
  std::vector<float> k_scale(128, 0.5f), v_scale(kTokens * 2);
  for (size_t i = 0; i < v_scale.size(); ++i) v_scale[i] = std::ldexp(1.0f, int(i % 9) - 4);
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0,
                           {DType::kI8, kTokens, bytes.data(), k_scale.data(), bytes.data(),
                            v_scale.data()},
                           std::vector<int32_t>{3, 0, 2}, nullptr)
                  .ok());
  const Stored stored = Read(*backend_, *pool, 0, {3, 0, 2}, kTokens);
  for (size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(stored.v[i], v_scale[i / 64] * static_cast<float>(bytes[i])) << i;
  }
}

// A dimension 1,000 times as large as the others leaves them their steps if the keys are balanced.
TEST_P(ConformanceKv, BalancedKeysKeepTheirSmallDimensions) {
  const KvLayout layout{2, 2, 64, DType::kI8};
  std::vector<float> balance(static_cast<size_t>(layout.KeyChannels()), 1.0f);
  auto k = Normal(20 * 128, random_);
  for (size_t at = 17; at < k.size(); at += 64) k[at] *= 1000;
  for (size_t at = 17; at < balance.size(); at += 64) balance[at] = 1000;
  const auto error = [&](std::span<const float> by) {
    auto pool = std::move(*backend_->CreateKvPool(layout, 2, by));
    EXPECT_TRUE(backend_
                    ->LoadKv(*pool, 1, {DType::kF32, 20, k.data(), nullptr, k.data(), nullptr},
                             std::vector<int32_t>{1, 0}, nullptr)
                    .ok());
    const Stored stored = Read(*backend_, *pool, 1, {1, 0}, 20);
    double most = 0;
    for (size_t i = 0; i < k.size(); ++i) {
      if (i % 64 != 17) most = std::max(most, std::abs(double{k[i]} - stored.k[i]));
    }
    return most;
  };
  EXPECT_GT(error({}), 0.5);                 // whole values vanish
  EXPECT_LE(error(balance), 5 * 0.5 / 127);  // of five standard deviations
}

// A group with a value that is not finite is NaN, of a pool of any type, and says so in attention.
TEST_P(ConformanceKv, WhatIsNotFiniteIsNotHidden) {
  for (const DType dtype : kPoolTypes) {
    for (const float bad : {std::numeric_limits<float>::infinity(), NAN}) {
      for (const bool key : {true, false}) {
        for (const bool loaded : {true, false}) {
          auto pool = std::move(*backend_->CreateKvPool({1, 1, 64, dtype}, kBlocks));
          SceneBuilder builder(kBlocks, random_);
          builder.Add({{20}, RowRange(0, 20)});
          Tensor k(*backend_, 20, 64, Normal(20 * 64, random_));
          Tensor v(*backend_, 20, 64, Normal(20 * 64, random_));
          (key ? k : v).host[7 * 64 + 3] = bad;
          k.Push();
          v.Push();
          if (loaded) {
            EXPECT_TRUE(
                backend_
                    ->LoadKv(*pool, 0,
                             {DType::kF32, 20, k.host.data(), nullptr, v.host.data(), nullptr},
                             BlocksOf(builder.batch, builder.batch.segments[0]), nullptr)
                    .ok());
          } else {
            backend_->AppendKv(*pool, 0, k.view(), v.view(), builder.batch, nullptr);
          }
          AttentionCase c;
          c.dtype = dtype;
          const auto out = RunAttention(*backend_, *pool, 0, builder.batch, c,
                                        std::vector<float>(20 * 64, 1.0f));
          SCOPED_TRACE(testing::Message() << TraitsOf(dtype).name << " " << bad << " key " << key
                                          << " loaded " << loaded);
          // Row 6 sees tokens 0..6; in floats 0 * NaN of row 7 reaches it all the same.
          EXPECT_TRUE(dtype != DType::kI8 || std::isfinite(out[6 * 64 + 3]));
          EXPECT_FALSE(std::isfinite(out[7 * 64 + 3]));
          EXPECT_FALSE(std::isfinite(out[19 * 64 + 3]));
        }
      }
    }
  }
}

TEST_P(ConformanceKv, ByHand) {
  // D = 2, position 1 at frequency 1: (1, 0) turns to (cos 1, sin 1).
  auto pool = std::move(*backend_->CreateKvPool({1, 1, 2, DType::kF32}, 2));
  const auto rope = RopeTable::Plain(RopePairing::kHalfSplit, 2, 10000);
  const std::vector<float> k = {1, 0, 1, 0}, v = {5, 6, 7, 8};
  EXPECT_TRUE(backend_
                  ->LoadKv(*pool, 0, {DType::kF32, 2, k.data(), nullptr, v.data(), nullptr},
                           std::vector<int32_t>{1}, &rope)
                  .ok());
  const Stored stored = Read(*backend_, *pool, 0, {1}, 2);
  EXPECT_EQ(stored.v, v);
  EXPECT_EQ(stored.k[0], 1.0f);
  EXPECT_NEAR(stored.k[2], 0.5403023, 1e-7);
  EXPECT_NEAR(stored.k[3], 0.8414710, 1e-7);
}

TEST_P(ConformanceKv, CopyBlockCopiesEveryLayerAndNothingElse) {
  const KvLayout layout{3, 2, 32, DType::kBF16};
  auto pool = std::move(*backend_->CreateKvPool(layout, 4));
  std::vector<std::vector<float>> values;
  for (int32_t layer = 0; layer < 3; ++layer) {
    values.push_back(Normal(64 * 64, random_));
    EXPECT_TRUE(backend_
                    ->LoadKv(*pool, layer,
                             {DType::kF32, 64, values.back().data(), nullptr, values.back().data(),
                              nullptr},
                             std::vector<int32_t>{0, 1, 2, 3}, nullptr)
                    .ok());
  }
  std::vector<Stored> before;
  for (int32_t layer = 0; layer < 3; ++layer) {
    before.push_back(Read(*backend_, *pool, layer, {0, 1, 2, 3}, 64));
  }
  backend_->CopyBlock(*pool, 1, 3);
  for (int32_t layer = 0; layer < 3; ++layer) {
    const Stored after = Read(*backend_, *pool, layer, {0, 1, 2, 1}, 64);
    const Stored read = Read(*backend_, *pool, layer, {0, 1, 2, 3}, 64);
    EXPECT_EQ(read.k, after.k);
    EXPECT_EQ(read.v, after.v);
    EXPECT_TRUE(std::equal(read.k.begin(), read.k.begin() + 48 * 64,
                           before[static_cast<size_t>(layer)].k.begin()));
  }
}

TEST_P(ConformanceKv, SaveCopiesRowsAsTheyAre) {
  const auto values = Normal(9 * 20, random_);
  Tensor k(*backend_, 9, 16, 4), v(*backend_, 9, 16, 4);
  k.host = v.host = values;
  k.Push();
  v.Push();
  std::vector<float> host_k(5 * 16, NAN), host_v(5 * 16, NAN);
  backend_->SaveKv(k.view(), v.view(), 3, 8, host_k.data(), host_v.data());
  for (int64_t i = 0; i < 5 * 16; ++i) {
    EXPECT_EQ(host_k[static_cast<size_t>(i)], k.at(3 + i / 16, i % 16));
  }
  EXPECT_EQ(host_k, host_v);
}

// Rows of several calls of a step, taken from memory that is overwritten in between.
TEST_P(ConformanceKv, WhatAStepSavesIsThereAtItsEnd) {
  constexpr size_t kCalls = 5;
  std::vector<float> host_k(kCalls * 32, NAN), host_v(kCalls * 32, NAN);
  Tensor k(*backend_, 3, 16), v(*backend_, 3, 16);
  std::vector<float> want_k, want_v;
  backend_->BeginStep();
  for (size_t call = 0; call < kCalls; ++call) {
    k.host = Normal(48, random_);
    v.host = Normal(48, random_);
    k.Push();
    v.Push();
    backend_->SaveKv(k.view(), v.view(), 1, 3, &host_k[call * 32], &host_v[call * 32]);
    want_k.insert(want_k.end(), k.host.begin() + 16, k.host.end());
    want_v.insert(want_v.end(), v.host.begin() + 16, v.host.end());
  }
  backend_->EndStep();
  EXPECT_EQ(host_k, want_k);
  EXPECT_EQ(host_v, want_v);
}

// LoadKv from several threads at once, on blocks of their own.
TEST_P(ConformanceKv, LoadsFromManyThreads) {
  const KvLayout layout{1, 2, 64, DType::kBF16};
  const auto rope = RopeTable::Plain(RopePairing::kHalfSplit, 64, 10000);
  auto pool = std::move(*backend_->CreateKvPool(layout, kBlocks));
  const auto k = Normal(200 * 128, random_), v = Normal(200 * 128, random_);
  const auto blocks_of = [](int thread) {
    std::vector<int32_t> blocks(13);
    for (int32_t i = 0; i < 13; ++i) blocks[static_cast<size_t>(i)] = thread * 13 + i;
    return blocks;
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      EXPECT_TRUE(backend_
                      ->LoadKv(*pool, 0,
                               {DType::kF32, 50 * (t + 1), k.data(), nullptr, v.data(), nullptr},
                               blocks_of(t), &rope)
                      .ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Stored longest = Read(*backend_, *pool, 0, blocks_of(3), 200);
  for (int t = 0; t < 4; ++t) {
    const Stored part = Read(*backend_, *pool, 0, blocks_of(t), 50 * (t + 1));
    EXPECT_TRUE(std::equal(part.k.begin(), part.k.end(), longest.k.begin()));
    EXPECT_TRUE(std::equal(part.v.begin(), part.v.end(), longest.v.begin()));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceKv, testing::ValuesIn(PresentBackends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvasir
