// The record of one layer group: header and plane offsets. Private to cache/.
//
//   [64-byte header] then for each layer, each part padded to 64 bytes:
//     kF32, kF16:  K | V
//     kInt8:       K | V | K scales | V scales
//     kInt4:       K | V | K steps | V steps | K lows | V lows
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "cache/kv_codec.h"

namespace kvasir {

inline constexpr size_t kPlaneAlignment = 64;
inline constexpr uint32_t kRecordMagic = 0x564b564b;  // "KVKV"
inline constexpr uint16_t kRecordVersion = 1;

// As it lies in the record, little-endian.
struct RecordHeader {
  uint32_t magic = kRecordMagic;
  uint16_t version = kRecordVersion;
  uint8_t codec = 0;  // KvCodec
  uint8_t reserved0 = 0;
  uint16_t first_layer = 0, layers = 0;
  uint32_t tokens = 0;
  uint16_t kv_heads = 0, head_dim = 0;
  uint32_t reserved1 = 0;
  uint64_t payload_bytes = 0;
  uint64_t payload_digest = 0;  // XXH3-64 of what follows the header
  uint64_t reserved2 = 0, reserved3 = 0;
  uint64_t header_digest = 0;  // XXH3-64 of the 56 bytes above; with them it names the record
};
static_assert(sizeof(RecordHeader) == 64);

// Byte offsets of one layer's planes from the layer's start, and its padded size.
struct LayerSpans {
  size_t v = 0;                     // K is at 0
  size_t k_scale = 0, v_scale = 0;  // kInt8: scales, kInt4: steps
  size_t k_low = 0, v_low = 0;      // kInt4
  size_t bytes = 0;
};
LayerSpans SpansOf(const ChunkShape& shape);

// The type that a codec's values lie in; the codec is a known one.
DType StoredDType(KvCodec codec);
bool ShapeInBounds(const ChunkShape& shape);
uint64_t HeaderDigest(const RecordHeader& header);
// Layers a group, the same for all groups but the last.
int32_t LayersPerGroup(const ChunkShape& shape);
// The header if the record holds one with sane fields and the right size; digests unchecked.
Result<RecordHeader> ReadHeader(std::string_view record);

}  // namespace kvasir
