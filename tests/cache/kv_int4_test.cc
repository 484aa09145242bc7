// The four-bit codec, and that records of the other codecs lie as they always did.
#include <cmath>
#include <cstring>

#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

TEST(KvInt4, ByHand) {
  // One head of two channels, two tokens. Channel 0 spans 1..16: step 1. Channel 1 is constant.
  KvCapture capture = KvCapture::For({1, 1, 2, DType::kF32}, 2);
  capture.k = {1.0f, -2.5f, 16.0f, -2.5f};
  capture.v = {-1.0f, 6.5f, 3.0f, 3.0f};  // steps 0.5 and 0
  const EncodedChunk chunk = EncodeChunk(capture, KvCodec::kInt4).value();
  const KvLayerPlanes planes = DecodePlanes(chunk).value()[0];
  EXPECT_EQ(planes.dtype, DType::kI4);
  EXPECT_EQ(F16ToF32(planes.k_grid.step[0]), 1.0f);
  EXPECT_EQ(F16ToF32(planes.k_grid.low[0]), 1.0f);
  EXPECT_EQ(F16ToF32(planes.k_grid.step[1]), 0.0f);
  EXPECT_EQ(F16ToF32(planes.k_grid.low[1]), -2.5f);
  const auto* k = static_cast<const uint8_t*>(planes.k);
  EXPECT_EQ(k[0], 0x00);
  EXPECT_EQ(k[1], 0x0f);  // channel 0 in the low half
  EXPECT_EQ(F16ToF32(planes.v_grid.step[0]), 0.5f);
  EXPECT_EQ(F16ToF32(planes.v_grid.low[0]), -1.0f);
  const auto* v = static_cast<const uint8_t*>(planes.v);
  EXPECT_EQ(v[0], 0xf0);
  EXPECT_EQ(v[1], 0x00);
  const KvCapture back = DecodeChunk(chunk).value();
  EXPECT_EQ(back.k, capture.k);
  EXPECT_EQ(back.v, capture.v);
}

// The grid covers its values, so |error| <= step / 2; (x - low) / step rounds three times in fp32,
// at most 15 * 3 * 2^-24 steps, and low + q * step twice more, of the larger of the two.
TEST(KvInt4, ErrorIsHalfAStep) {
  const KvLayout layout{2, 3, 24, DType::kF32};
  for (const int32_t tokens : {1, 63, 64, 65, 200}) {
    KvCapture capture = RandomCapture(layout, tokens, 5);
    for (size_t i = 0; i < capture.k.size(); i += 3) capture.k[i] += 100.0f;  // far from zero
    const EncodedChunk chunk = EncodeChunk(capture, KvCodec::kInt4).value();
    const KvCapture back = DecodeChunk(chunk).value();
    const auto planes = DecodePlanes(chunk).value();
    constexpr float kUnit = 0x1p-24f, kHalf = 0.5f + 45 * kUnit;
    const auto bound = [&](const KvGrid& grid, size_t at, float value) {
      return kHalf * F16ToF32(grid.step[at]) + 2 * kUnit * (std::fabs(value) + 16);
    };
    for (size_t i = 0; i < capture.k.size(); ++i) {
      const KvLayerPlanes& layer = planes[i / capture.LayerStride()];
      const size_t j = i % capture.LayerStride(), token = j / 72;
      const size_t at = token / kInt4GroupTokens * 72 + j % 72;
      ASSERT_LE(std::fabs(capture.k[i] - back.k[i]), bound(layer.k_grid, at, capture.k[i]));
      ASSERT_LE(std::fabs(capture.v[i] - back.v[i]), bound(layer.v_grid, j / 24, capture.v[i]));
    }
  }
}

// Steps are as fine as fp16 allows: 15 of them are no longer than the range and what rounding low
// down (2^-10 of it) and step up (2^-10, or a subnormal unit) adds.
TEST(KvInt4, GridsAreTight) {
  const KvCapture capture = RandomCapture({1, 1, 64, DType::kF32}, 64, 6);
  const EncodedChunk chunk = EncodeChunk(capture, KvCodec::kInt4).value();
  const KvLayerPlanes planes = DecodePlanes(chunk).value()[0];
  for (size_t c = 0; c < 64; ++c) {
    float min = capture.k[c], max = min;
    for (size_t t = 1; t < 64; ++t) {
      min = std::min(min, capture.k[t * 64 + c]);
      max = std::max(max, capture.k[t * 64 + c]);
    }
    const float low = F16ToF32(planes.k_grid.low[c]), step = F16ToF32(planes.k_grid.step[c]);
    EXPECT_LE(low, min);
    EXPECT_GE(low, min - std::fabs(min) * 0x1p-10f);
    EXPECT_LE(15 * step, (max - low) * (1 + 0x1p-9f));
  }
}

TEST(KvInt4, SizesAreAsPlanned) {
  // SmolLM2: 30 layers x 3 heads x (32 + 32 bytes of values + fp16 step and low of V) = 6,120 bytes
  // a token, and 30 x 192 x 4 fp16 steps and lows of K a chunk of 256.
  const ChunkShape shape{30, 256, 3, 64, KvCodec::kInt4};
  const size_t expected = 256 * 6120 + 30 * 192 * 4 * 4 + 2 * 64;  // two groups' headers
  EXPECT_EQ(EncodedBytes(shape), expected);
  const EncodedChunk chunk =
      EncodeChunk(RandomCapture({30, 3, 64, DType::kF32}, 256, 7), KvCodec::kInt4).value();
  EXPECT_EQ(chunk.bytes(), expected);
  for (const RecordBytes& group : chunk.groups) EXPECT_TRUE(VerifyRecord(group.view()).ok());
}

TEST(KvInt4, PlanesAreAlignedAndDisjoint) {
  for (const int32_t tokens : {1, 17, 64, 65, 333}) {
    const EncodedChunk chunk =
        EncodeChunk(RandomCapture(SmallLayout(), tokens, 8), KvCodec::kInt4).value();
    const std::vector<KvLayerPlanes> layers = DecodePlanes(chunk).value();
    for (const KvLayerPlanes& planes : layers) {
      const auto at = [](const void* plane) { return reinterpret_cast<uintptr_t>(plane); };
      const size_t values = static_cast<size_t>(tokens) * 8, rows = static_cast<size_t>(tokens) * 4;
      const size_t grid = static_cast<size_t>(Int4GroupsFor(tokens)) * 16 * 2;
      const std::vector<std::pair<uintptr_t, size_t>> parts = {
          {at(planes.k), values},         {at(planes.v), values},
          {at(planes.k_grid.step), grid}, {at(planes.v_grid.step), rows},
          {at(planes.k_grid.low), grid},  {at(planes.v_grid.low), rows}};
      for (size_t i = 0; i < parts.size(); ++i) {
        EXPECT_EQ(parts[i].first % 64, 0u);
        if (i == 0) continue;
        EXPECT_GE(parts[i].first, parts[i - 1].first + parts[i - 1].second);
      }
    }
  }
}

TEST(KvInt4, EncodingIsDeterministic) {
  const KvCapture capture = RandomCapture(SmallLayout(), 70, 9);
  EXPECT_TRUE(SameBytes(EncodeChunk(capture, KvCodec::kInt4).value(),
                        EncodeChunk(capture, KvCodec::kInt4).value()));
}

TEST(KvInt4, WhatCannotBeStoredIsRefused) {
  for (const float bad : {INFINITY, NAN, -70000.0f, 1e6f}) {
    for (const bool key : {true, false}) {
      KvCapture capture = RandomCapture(SmallLayout(), 5, 10);
      (key ? capture.k : capture.v)[17] = bad;
      EXPECT_EQ(EncodeChunk(capture, KvCodec::kInt4).status().code(), StatusCode::kInvalidArgument);
    }
  }
  KvCapture widest = RandomCapture(SmallLayout(), 2, 10);
  widest.k[0] = 900000.0f, widest.k[16] = -65504.0f;  // of one channel: low and step fit fp16
  EXPECT_TRUE(EncodeChunk(widest, KvCodec::kInt4).ok());
  EXPECT_FALSE(EncodeChunk(RandomCapture({1, 1, 7, DType::kF32}, 5, 1), KvCodec::kInt4).ok());
  EXPECT_TRUE(EncodeChunk(RandomCapture({1, 1, 7, DType::kF32}, 5, 1), KvCodec::kInt8).ok());
}

TEST(KvInt4, EveryBitMatters) {
  const EncodedChunk chunk =
      EncodeChunk(RandomCapture({1, 1, 4, DType::kF32}, 3, 12), KvCodec::kInt4).value();
  const std::string record(chunk.groups[0].view());
  for (size_t bit = 0; bit < record.size() * 8; ++bit) {
    std::string damaged = record;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_EQ(VerifyRecord(damaged).code(), StatusCode::kDataLoss) << "bit " << bit;
  }
}

TEST(KvInt4, IsACodecOfItsOwn) {
  EXPECT_EQ(ParseKvCodec("int4").value(), KvCodec::kInt4);
  EXPECT_EQ(KvCodecName(KvCodec::kInt4), "int4");
  FingerprintFields fields;
  const Digest128 int8 = Fingerprint(fields);
  fields.codec = KvCodec::kInt4;
  EXPECT_NE(Fingerprint(fields), int8);
}

// Digests of records written before there was a four-bit codec: what is stored stays readable.
TEST(KvRecord, LayoutsOfOlderCodecsStay) {
  KvCapture capture = KvCapture::For({2, 1, 2, DType::kF32}, 2);
  capture.k = {127.0f, 0.5f, -63.6f, -1.27f, 1.0f, 2.0f, 3.0f, 4.0f};
  capture.v = {2.54f, -1.27f, 0.0f, 0.0f, 5.0f, 6.0f, 7.0f, 8.0f};
  const auto digest = [&](KvCodec codec) {
    return Digest64Of(EncodeChunk(capture, codec).value().groups[0].view());
  };
  EXPECT_EQ(digest(KvCodec::kInt8), 0xb8b510cf6f4864dcu);
  EXPECT_EQ(digest(KvCodec::kF16), 0x1fa61291e27ae0fbu);
  EXPECT_EQ(digest(KvCodec::kF32), 0x78c8012d91f79aabu);
}

}  // namespace
}  // namespace kvasir
