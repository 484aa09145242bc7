// The KV codec: a chunk's captured KV to records and back to planes that a backend loads.
//
// An encoded chunk is a list of groups of consecutive layers, each one self-describing record of
// 0.5-1 MiB: a 64-byte header, then per layer K, V and their scales (cache/kv_record.h), each
// 64-byte aligned from the record's start. Records are what memory and disk hold, byte for byte;
// planes point into them.
// kInt8: K symmetric per channel over the closed chunk, V symmetric per token and head, both
// round-to-nearest with scale = max|x| / 127, so |error| <= scale / 2.
// kInt4: K asymmetric per channel and 64 tokens, V asymmetric per token and head (cache/kv_int4.h);
// 0.54 of kInt8's bytes with heads of 64. Exact KV of 8 chunks of 256 tokens, KL to full prefill,
// step 1 / mean: SmolLM2-135M 0.0014 / 0.0051, Qwen2.5-Coder-0.5B 0.011 / 0.010; symmetric per
// channel over the chunk it is 0.019 / 0.029 and 0.077 / 0.067. Nearly all of it comes from K.
// Thread-safe: values. RecordBytes share ownership, so copies of an EncodedChunk are cheap.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/chunk_key.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/status.h"

namespace kvasir {

// Immutable bytes with shared ownership; data() is at least 16-byte aligned.
class RecordBytes {
 public:
  RecordBytes() = default;
  RecordBytes(const char* data, size_t size, std::shared_ptr<const void> owner)
      : data_(data), size_(size), owner_(std::move(owner)) {}
  const char* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view view() const { return {data_, size_}; }

 private:
  const char* data_ = nullptr;
  size_t size_ = 0;
  std::shared_ptr<const void> owner_;
};

struct ChunkShape {
  int32_t layers = 0, tokens = 0, kv_heads = 0, head_dim = 0;
  KvCodec codec = KvCodec::kInt8;
  friend bool operator==(const ChunkShape&, const ChunkShape&) = default;
};

struct EncodedChunk {
  ChunkShape shape;
  std::vector<RecordBytes> groups;  // in layer order
  size_t bytes() const;             // of all groups
};

// Bounds that a record must keep; they also bound what a damaged header can make us allocate.
inline constexpr int32_t kMaxChunkTokens = 1 << 20;
inline constexpr int32_t kMaxChunkLayers = 1024;
inline constexpr size_t kLayerGroupBytes = size_t{1} << 20;  // target: at most this, >= one layer

// kInvalidArgument: empty or inconsistent capture, or a value that is not finite (or, for kF16
// and kInt4, out of its range); for kInt4 an odd head_dim.
Result<EncodedChunk> EncodeChunk(const KvCapture& capture, KvCodec codec);

// Bytes that EncodeChunk will make, headers and padding included: for dry runs.
size_t EncodedBytes(const ChunkShape& shape);

// Checks one group record: magic, version, bounds, sizes, XXH3 of header and payload. kDataLoss.
Status VerifyRecord(std::string_view record);

// Appends the planes of the chunk's next group, of layer planes->size() on. kDataLoss.
Status DecodeGroup(const ChunkShape& shape, const RecordBytes& group,
                   std::vector<KvLayerPlanes>* planes);

// One KvLayerPlanes a layer, pointing into the chunk's records (which must outlive them). Checks
// headers against the shape, not digests: records of unknown origin go through VerifyRecord first.
Result<std::vector<KvLayerPlanes>> DecodePlanes(const EncodedChunk& chunk);

// Values back as fp32 [layers][tokens][G][D], for tests and diagnostics.
Result<KvCapture> DecodeChunk(const EncodedChunk& chunk);

}  // namespace kvasir
