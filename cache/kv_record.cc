#include "cache/kv_record.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "cache/digest.h"

namespace kvasir {
namespace {

size_t Padded(size_t bytes) {
  return (bytes + kPlaneAlignment - 1) / kPlaneAlignment * kPlaneAlignment;
}

struct ScaleBytes {
  size_t k = 0, v = 0;
};

// Of K scales and V scales (kInt8), or of K steps and V steps, and again of K lows and V lows.
ScaleBytes ScaleBytesOf(const ChunkShape& shape) {
  const auto rows = static_cast<size_t>(shape.tokens) * static_cast<size_t>(shape.kv_heads);
  const auto channels = static_cast<size_t>(shape.kv_heads) * static_cast<size_t>(shape.head_dim);
  if (shape.codec == KvCodec::kInt8) return {channels * sizeof(float), rows * sizeof(float)};
  if (shape.codec != KvCodec::kInt4) return {};
  const auto groups = static_cast<size_t>(Int4GroupsFor(shape.tokens));
  return {groups * channels * sizeof(uint16_t), rows * sizeof(uint16_t)};
}

ChunkShape ShapeOf(const RecordHeader& header) {
  return {header.layers, static_cast<int32_t>(std::min<uint32_t>(header.tokens, INT32_MAX)),
          header.kv_heads, header.head_dim, static_cast<KvCodec>(header.codec)};
}

}  // namespace

DType StoredDType(KvCodec codec) {
  switch (codec) {
    case KvCodec::kInt8:
      return DType::kI8;
    case KvCodec::kF16:
      return DType::kF16;
    case KvCodec::kInt4:
      return DType::kI4;
    case KvCodec::kF32:
      break;
  }
  return DType::kF32;
}

LayerSpans SpansOf(const ChunkShape& shape) {
  const auto tokens = static_cast<size_t>(shape.tokens);
  const auto heads = static_cast<size_t>(shape.kv_heads);
  const size_t count = tokens * heads * static_cast<size_t>(shape.head_dim);
  const size_t values = Padded(BytesOf(StoredDType(shape.codec), count));
  const ScaleBytes scales = ScaleBytesOf(shape);
  const bool lows = shape.codec == KvCodec::kInt4;
  LayerSpans spans;
  spans.v = values;
  spans.k_scale = 2 * values;
  spans.v_scale = spans.k_scale + Padded(scales.k);
  spans.k_low = spans.v_scale + Padded(scales.v);
  spans.v_low = spans.k_low + (lows ? Padded(scales.k) : 0);
  spans.bytes = spans.v_low + (lows ? Padded(scales.v) : 0);
  return spans;
}

bool ShapeInBounds(const ChunkShape& shape) {
  const auto within = [](int32_t value, int32_t max) { return value >= 1 && value <= max; };
  const bool int4 = shape.codec == KvCodec::kInt4;
  const bool known = int4 || shape.codec == KvCodec::kInt8 || shape.codec == KvCodec::kF16 ||
                     shape.codec == KvCodec::kF32;
  if (int4 && shape.head_dim % 2 != 0) return false;  // two values a byte
  return known && within(shape.layers, kMaxChunkLayers) && within(shape.tokens, kMaxChunkTokens) &&
         within(shape.kv_heads, UINT16_MAX) && within(shape.head_dim, UINT16_MAX);
}

uint64_t HeaderDigest(const RecordHeader& header) {
  return Digest64Of(
      {reinterpret_cast<const char*>(&header), offsetof(RecordHeader, header_digest)});
}

int32_t LayersPerGroup(const ChunkShape& shape) {
  const size_t layer = SpansOf(shape).bytes;
  const auto most = static_cast<int32_t>(
      std::clamp<size_t>(kLayerGroupBytes / layer, 1, static_cast<size_t>(shape.layers)));
  const int32_t groups = (shape.layers + most - 1) / most;
  return (shape.layers + groups - 1) / groups;  // spread evenly
}

Result<RecordHeader> ReadHeader(std::string_view record) {
  RecordHeader header;
  if (record.size() < sizeof header) {
    return DataLoss("KV record of " + std::to_string(record.size()) + " bytes has no header");
  }
  std::memcpy(&header, record.data(), sizeof header);
  if (header.magic != kRecordMagic) return DataLoss("KV record with a wrong magic number");
  if (header.version != kRecordVersion) {
    return DataLoss("KV record of unknown version " + std::to_string(header.version));
  }
  const ChunkShape shape = ShapeOf(header);
  if (!ShapeInBounds(shape)) return DataLoss("KV record with a geometry out of bounds");
  const size_t payload = record.size() - sizeof header;
  if (header.payload_bytes != payload ||
      payload != SpansOf(shape).bytes * static_cast<size_t>(shape.layers)) {
    return DataLoss("KV record whose size is not that of its geometry");
  }
  return header;
}

}  // namespace kvasir
