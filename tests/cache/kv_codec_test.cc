#include "cache/kv_codec.h"

#include <cmath>
#include <limits>

#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

KvLayout SmolLayout() { return {30, 3, 64, DType::kF32}; }

TEST(KvCodec, Int8ByHand) {
  // One layer, two tokens, one head of two channels.
  KvCapture capture = KvCapture::For({1, 1, 2, DType::kF32}, 2);
  capture.k = {127.0f, 0.5f, -63.6f, -1.27f};  // channel maxima 127 and 1.27
  capture.v = {2.54f, -1.27f, 0.0f, 0.0f};     // token maxima 2.54 and 0
  const EncodedChunk chunk = EncodeChunk(capture, KvCodec::kInt8).value();
  const KvLayerPlanes planes = DecodePlanes(chunk).value()[0];
  const auto* k = static_cast<const int8_t*>(planes.k);
  const auto* v = static_cast<const int8_t*>(planes.v);
  EXPECT_FLOAT_EQ(planes.k_scale[0], 1.0f);
  EXPECT_FLOAT_EQ(planes.k_scale[1], 0.01f);
  EXPECT_EQ(std::vector<int8_t>(k, k + 4), (std::vector<int8_t>{127, 50, -64, -127}));
  EXPECT_FLOAT_EQ(planes.v_scale[0], 0.02f);
  EXPECT_EQ(planes.v_scale[1], 0.0f);
  EXPECT_EQ(v[0], 127);
  EXPECT_EQ(v[2], 0);
}

// |x - q s| <= s / 2 by rounding to nearest; the products x * (127/max) and q * s each round once
// in fp32, at most 127 * 2 * 2^-24 steps more.
TEST(KvCodec, Int8ErrorIsHalfAStep) {
  const KvLayout layout{4, 3, 24, DType::kF32};
  const int32_t tokens = 37;
  const KvCapture capture = RandomCapture(layout, tokens, 5);
  const EncodedChunk chunk = EncodeChunk(capture, KvCodec::kInt8).value();
  const KvCapture back = DecodeChunk(chunk).value();
  const auto planes = DecodePlanes(chunk).value();
  constexpr float kHalf = 0.5f + 127.0f * 2.0f / 16777216.0f;
  const size_t channels = 3 * 24;
  for (size_t i = 0; i < capture.k.size(); ++i) {
    const KvLayerPlanes& layer = planes[i / capture.LayerStride()];
    const size_t in_layer = i % capture.LayerStride();
    ASSERT_LE(std::fabs(capture.k[i] - back.k[i]), kHalf * layer.k_scale[in_layer % channels]);
    ASSERT_LE(std::fabs(capture.v[i] - back.v[i]), kHalf * layer.v_scale[in_layer / 24]);
  }
}

TEST(KvCodec, F32IsExactAndF16WithinItsRounding) {
  const KvCapture capture = RandomCapture(SmallLayout(), 19, 6);
  const KvCapture exact = DecodeChunk(EncodeChunk(capture, KvCodec::kF32).value()).value();
  EXPECT_EQ(exact.k, capture.k);
  EXPECT_EQ(exact.v, capture.v);
  const KvCapture half = DecodeChunk(EncodeChunk(capture, KvCodec::kF16).value()).value();
  for (size_t i = 0; i < capture.k.size(); ++i) {
    // Half a unit in the last of 11 bits, or of the smallest subnormal.
    const float bound = std::max(std::fabs(capture.k[i]) / 2048.0f, 0x1p-25f);
    ASSERT_LE(std::fabs(half.k[i] - capture.k[i]), bound);
  }
}

TEST(KvCodec, SizesAreAsPlanned) {
  // SmolLM2: 30 layers x 3 heads x (64 + 64 values + one fp32 scale of V) = 11,880 bytes a token,
  // and 30 x 192 fp32 scales of K a chunk.
  const ChunkShape shape{30, 256, 3, 64, KvCodec::kInt8};
  const size_t expected = 256 * 11880 + 30 * 192 * 4 + 3 * 64;  // three groups' headers
  EXPECT_EQ(EncodedBytes(shape), expected);
  const EncodedChunk chunk =
      EncodeChunk(RandomCapture(SmolLayout(), 256, 7), KvCodec::kInt8).value();
  EXPECT_EQ(chunk.bytes(), expected);
  ASSERT_EQ(chunk.groups.size(), 3u);
  for (const RecordBytes& group : chunk.groups) {
    EXPECT_GE(group.size(), kLayerGroupBytes / 2);
    EXPECT_LE(group.size(), kLayerGroupBytes);
    EXPECT_TRUE(VerifyRecord(group.view()).ok());
  }
}

TEST(KvCodec, PlanesAreAlignedAndInsideTheRecord) {
  for (const int32_t tokens : {1, 15, 16, 17, 333}) {
    const EncodedChunk chunk =
        EncodeChunk(RandomCapture(SmallLayout(), tokens, 8), KvCodec::kInt8).value();
    const std::vector<KvLayerPlanes> layers = DecodePlanes(chunk).value();
    for (const KvLayerPlanes& planes : layers) {
      for (const void* plane : {planes.k, planes.v, static_cast<const void*>(planes.k_scale),
                                static_cast<const void*>(planes.v_scale)}) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(plane) % 64, 0u);
      }
      EXPECT_EQ(planes.tokens, tokens);
    }
  }
}

TEST(KvCodec, EncodingIsDeterministic) {
  const KvCapture capture = RandomCapture(SmallLayout(), 21, 9);
  EXPECT_TRUE(SameBytes(EncodeChunk(capture, KvCodec::kInt8).value(),
                        EncodeChunk(capture, KvCodec::kInt8).value()));
}

TEST(KvCodec, ValuesThatCannotBeStoredAreRefused) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    KvCapture capture = RandomCapture(SmallLayout(), 5, 10);
    capture.v[17] = bad;
    for (const KvCodec codec : {KvCodec::kInt8, KvCodec::kF16, KvCodec::kF32}) {
      EXPECT_EQ(EncodeChunk(capture, codec).status().code(), StatusCode::kInvalidArgument);
    }
  }
  KvCapture large = RandomCapture(SmallLayout(), 5, 10);
  large.k[3] = 70000.0f;  // beyond fp16
  EXPECT_FALSE(EncodeChunk(large, KvCodec::kF16).ok());
  EXPECT_TRUE(EncodeChunk(large, KvCodec::kInt8).ok());
}

TEST(KvCodec, TinyAndZeroChannelsAreZero) {
  KvCapture capture = KvCapture::For({1, 1, 2, DType::kF32}, 1);
  capture.k = {1e-40f, 0.0f};
  const KvCapture back = DecodeChunk(EncodeChunk(capture, KvCodec::kInt8).value()).value();
  EXPECT_EQ(back.k, (std::vector<float>{0.0f, 0.0f}));
}

TEST(KvCodec, EmptyOrInconsistentCapturesAreRefused) {
  EXPECT_FALSE(EncodeChunk(KvCapture(), KvCodec::kInt8).ok());
  KvCapture torn = RandomCapture(SmallLayout(), 5, 11);
  torn.v.pop_back();
  EXPECT_FALSE(EncodeChunk(torn, KvCodec::kInt8).ok());
}

TEST(KvRecord, EveryBitMatters) {
  const EncodedChunk chunk =
      EncodeChunk(RandomCapture({1, 1, 4, DType::kF32}, 3, 12), KvCodec::kInt8).value();
  const std::string record(chunk.groups[0].view());
  for (size_t bit = 0; bit < record.size() * 8; ++bit) {
    std::string damaged = record;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_EQ(VerifyRecord(damaged).code(), StatusCode::kDataLoss) << "bit " << bit;
  }
}

TEST(KvRecord, EveryTruncationIsNoticed) {
  const EncodedChunk chunk =
      EncodeChunk(RandomCapture({1, 1, 4, DType::kF32}, 3, 12), KvCodec::kInt8).value();
  for (size_t size = 0; size < chunk.groups[0].size(); ++size) {
    ASSERT_FALSE(VerifyRecord(chunk.groups[0].view().substr(0, size)).ok());
  }
}

TEST(KvRecord, GroupsOfAnotherChunkDoNotFit) {
  const KvLayout layout = SmolLayout();
  EncodedChunk a = EncodeChunk(RandomCapture(layout, 256, 13), KvCodec::kInt8).value();
  ASSERT_EQ(a.groups.size(), 3u);
  EncodedChunk swapped = a;
  std::swap(swapped.groups[0], swapped.groups[1]);
  EXPECT_EQ(DecodePlanes(swapped).status().code(), StatusCode::kDataLoss);
  EncodedChunk short_one = a;
  short_one.groups.pop_back();
  EXPECT_EQ(DecodePlanes(short_one).status().code(), StatusCode::kDataLoss);
  EncodedChunk other_shape = a;
  other_shape.shape.kv_heads = 64, other_shape.shape.head_dim = 3;
  EXPECT_EQ(DecodePlanes(other_shape).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace kvasir
