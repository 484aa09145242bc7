#include "cache/kv_codec.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "cache/digest.h"
#include "cache/kv_int4.h"
#include "cache/kv_quantize.h"
#include "cache/kv_record.h"

namespace kvasir {
namespace {

template <typename T>
T* As(char* bytes) {
  return reinterpret_cast<T*>(bytes);
}
template <typename T>
const T* As(const char* bytes) {
  return reinterpret_cast<const T*>(bytes);
}

// Zeroed, so that padding has one value.
std::shared_ptr<char> AllocateRecord(size_t bytes) {
  void* memory = std::aligned_alloc(kPlaneAlignment, bytes);  // bytes: a multiple of 64
  if (memory == nullptr) return nullptr;
  std::memset(memory, 0, bytes);
  return {static_cast<char*>(memory), [](char* p) { std::free(p); }};
}

Status CheckCapture(const KvCapture& capture, const ChunkShape& shape) {
  if (!ShapeInBounds(shape)) {
    return InvalidArgument("cannot encode KV of " + std::to_string(shape.layers) + " layers, " +
                           std::to_string(shape.tokens) + " tokens, " +
                           std::to_string(shape.kv_heads) + " heads of " +
                           std::to_string(shape.head_dim) + ": a size is out of bounds");
  }
  const size_t values = capture.LayerStride() * static_cast<size_t>(capture.layers);
  if (capture.k.size() != values || capture.v.size() != values) {
    return InvalidArgument("captured KV does not have the size of its geometry");
  }
  return Status::Ok();
}

bool EncodeLayer(const float* k, const float* v, const ChunkShape& shape, char* out) {
  const auto tokens = static_cast<size_t>(shape.tokens);
  const auto heads = static_cast<size_t>(shape.kv_heads);
  const auto dim = static_cast<size_t>(shape.head_dim);
  const size_t count = tokens * heads * dim;
  if (!AllFinite(k, count) || !AllFinite(v, count)) return false;
  const LayerSpans spans = SpansOf(shape);
  switch (shape.codec) {
    case KvCodec::kInt8:
      QuantizePerChannel(k, tokens, heads * dim, As<int8_t>(out), As<float>(out + spans.k_scale));
      QuantizePerTokenHead(v, tokens, heads, dim, As<int8_t>(out + spans.v),
                           As<float>(out + spans.v_scale));
      return true;
    case KvCodec::kInt4:
      return PackPerChannel(k, tokens, heads * dim, As<uint8_t>(out),
                            As<uint16_t>(out + spans.k_scale), As<uint16_t>(out + spans.k_low)) &&
             PackPerRow(v, tokens * heads, dim, As<uint8_t>(out + spans.v),
                        As<uint16_t>(out + spans.v_scale), As<uint16_t>(out + spans.v_low));
    case KvCodec::kF16:
      return ToF16(k, count, As<uint16_t>(out)) && ToF16(v, count, As<uint16_t>(out + spans.v));
    case KvCodec::kF32:
      std::memcpy(out, k, count * sizeof(float));
      std::memcpy(out + spans.v, v, count * sizeof(float));
      return true;
  }
  return false;
}

void WriteHeader(const ChunkShape& shape, int32_t first_layer, int32_t layers, size_t bytes,
                 char* record) {
  RecordHeader header;
  header.codec = static_cast<uint8_t>(shape.codec);
  header.first_layer = static_cast<uint16_t>(first_layer);
  header.layers = static_cast<uint16_t>(layers);
  header.tokens = static_cast<uint32_t>(shape.tokens);
  header.kv_heads = static_cast<uint16_t>(shape.kv_heads);
  header.head_dim = static_cast<uint16_t>(shape.head_dim);
  header.payload_bytes = bytes - sizeof header;
  header.payload_digest = Digest64Of({record + sizeof header, bytes - sizeof header});
  header.header_digest = HeaderDigest(header);
  std::memcpy(record, &header, sizeof header);
}

Result<RecordBytes> EncodeGroup(const KvCapture& capture, const ChunkShape& shape,
                                int32_t first_layer, int32_t layers) {
  const size_t layer_bytes = SpansOf(shape).bytes;
  const size_t bytes = sizeof(RecordHeader) + layer_bytes * static_cast<size_t>(layers);
  std::shared_ptr<char> record = AllocateRecord(bytes);
  if (!record) return ResourceExhausted("no memory to encode KV");
  for (int32_t i = 0; i < layers; ++i) {
    const size_t from = static_cast<size_t>(first_layer + i) * capture.LayerStride();
    char* out = record.get() + sizeof(RecordHeader) + static_cast<size_t>(i) * layer_bytes;
    if (!EncodeLayer(capture.k.data() + from, capture.v.data() + from, shape, out)) {
      return InvalidArgument("KV of layer " + std::to_string(first_layer + i) +
                             " holds a value that is not finite or does not fit " +
                             std::string(KvCodecName(shape.codec)));
    }
  }
  WriteHeader(shape, first_layer, layers, bytes, record.get());
  return RecordBytes(record.get(), bytes, record);
}

KvLayerPlanes PlanesAt(const ChunkShape& shape, const char* layer) {
  const LayerSpans spans = SpansOf(shape);
  KvLayerPlanes planes{StoredDType(shape.codec), shape.tokens, layer, nullptr,
                       layer + spans.v,          nullptr};
  if (shape.codec == KvCodec::kInt8) {
    planes.k_scale = As<float>(layer + spans.k_scale);
    planes.v_scale = As<float>(layer + spans.v_scale);
  } else if (shape.codec == KvCodec::kInt4) {
    planes.k_grid = {As<uint16_t>(layer + spans.k_scale), As<uint16_t>(layer + spans.k_low)};
    planes.v_grid = {As<uint16_t>(layer + spans.v_scale), As<uint16_t>(layer + spans.v_low)};
  }
  return planes;
}

bool Fits(const RecordHeader& header, const ChunkShape& shape, size_t first_layer) {
  return header.codec == static_cast<uint8_t>(shape.codec) && header.first_layer == first_layer &&
         header.tokens == static_cast<uint32_t>(shape.tokens) &&
         header.kv_heads == shape.kv_heads && header.head_dim == shape.head_dim &&
         first_layer + header.layers <= static_cast<size_t>(shape.layers);
}

float Placed(const KvGrid& grid, size_t index, uint8_t pair, size_t i) {
  const auto q = static_cast<float>((pair >> (i % 2 * 4)) & 15);
  return F16ToF32(grid.low[index]) + q * F16ToF32(grid.step[index]);
}

void DecodeInt4(const KvLayerPlanes& planes, size_t channels, size_t dim, float* k, float* v) {
  const auto* k4 = static_cast<const uint8_t*>(planes.k);
  const auto* v4 = static_cast<const uint8_t*>(planes.v);
  for (size_t i = 0; i < static_cast<size_t>(planes.tokens) * channels; ++i) {
    const size_t group = i / channels / kInt4GroupTokens;
    k[i] = Placed(planes.k_grid, group * channels + i % channels, k4[i / 2], i);
    v[i] = Placed(planes.v_grid, i / dim, v4[i / 2], i);
  }
}

void DecodePlane(const KvLayerPlanes& planes, const ChunkShape& shape, float* k, float* v) {
  const auto channels = static_cast<size_t>(shape.kv_heads) * static_cast<size_t>(shape.head_dim);
  const size_t count = static_cast<size_t>(shape.tokens) * channels;
  if (planes.dtype == DType::kI4) {
    DecodeInt4(planes, channels, static_cast<size_t>(shape.head_dim), k, v);
    return;
  }
  if (planes.dtype != DType::kI8) {
    DequantizeRow(planes.dtype, planes.k, count, k);
    DequantizeRow(planes.dtype, planes.v, count, v);
    return;
  }
  const auto* k8 = static_cast<const int8_t*>(planes.k);
  const auto* v8 = static_cast<const int8_t*>(planes.v);
  for (size_t i = 0; i < count; ++i) {
    k[i] = static_cast<float>(k8[i]) * planes.k_scale[i % channels];
    v[i] = static_cast<float>(v8[i]) * planes.v_scale[i / static_cast<size_t>(shape.head_dim)];
  }
}

}  // namespace

size_t EncodedChunk::bytes() const {
  size_t total = 0;
  for (const RecordBytes& group : groups) total += group.size();
  return total;
}

Result<EncodedChunk> EncodeChunk(const KvCapture& capture, KvCodec codec) {
  EncodedChunk chunk;
  chunk.shape = {capture.layers, capture.tokens, capture.kv_heads, capture.head_dim, codec};
  KVASIR_RETURN_IF_ERROR(CheckCapture(capture, chunk.shape));
  const int32_t per_group = LayersPerGroup(chunk.shape);
  for (int32_t first = 0; first < capture.layers; first += per_group) {
    const int32_t layers = std::min(per_group, capture.layers - first);
    KVASIR_ASSIGN_OR_RETURN(RecordBytes group, EncodeGroup(capture, chunk.shape, first, layers));
    chunk.groups.push_back(std::move(group));
  }
  return chunk;
}

size_t EncodedBytes(const ChunkShape& shape) {
  if (!ShapeInBounds(shape)) return 0;
  const int32_t per_group = LayersPerGroup(shape);
  const auto groups = static_cast<size_t>((shape.layers + per_group - 1) / per_group);
  return groups * sizeof(RecordHeader) + SpansOf(shape).bytes * static_cast<size_t>(shape.layers);
}

Status VerifyRecord(std::string_view record) {
  KVASIR_ASSIGN_OR_RETURN(const RecordHeader header, ReadHeader(record));
  if (HeaderDigest(header) != header.header_digest) {
    return DataLoss("KV record with a damaged header");
  }
  if (Digest64Of(record.substr(sizeof header)) != header.payload_digest) {
    return DataLoss("KV record with a damaged payload");
  }
  return Status::Ok();
}

Status DecodeGroup(const ChunkShape& shape, const RecordBytes& group,
                   std::vector<KvLayerPlanes>* planes) {
  KVASIR_ASSIGN_OR_RETURN(const RecordHeader header, ReadHeader(group.view()));
  if (!Fits(header, shape, planes->size())) {
    return DataLoss("layer group at layer " + std::to_string(header.first_layer) +
                    " does not belong to its chunk");
  }
  const char* layer = group.data() + sizeof header;
  for (int32_t i = 0; i < header.layers; ++i, layer += SpansOf(shape).bytes) {
    planes->push_back(PlanesAt(shape, layer));
  }
  return Status::Ok();
}

Result<std::vector<KvLayerPlanes>> DecodePlanes(const EncodedChunk& chunk) {
  if (!ShapeInBounds(chunk.shape)) return DataLoss("encoded chunk with a shape out of bounds");
  std::vector<KvLayerPlanes> planes;
  for (const RecordBytes& group : chunk.groups) {
    KVASIR_RETURN_IF_ERROR(DecodeGroup(chunk.shape, group, &planes));
  }
  if (planes.size() != static_cast<size_t>(chunk.shape.layers)) {
    return DataLoss("encoded chunk lacks layers");
  }
  return planes;
}

Result<KvCapture> DecodeChunk(const EncodedChunk& chunk) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<KvLayerPlanes> planes, DecodePlanes(chunk));
  const ChunkShape& shape = chunk.shape;
  KvCapture capture =
      KvCapture::For({shape.layers, shape.kv_heads, shape.head_dim, DType::kF32}, shape.tokens);
  for (size_t layer = 0; layer < planes.size(); ++layer) {
    const size_t at = layer * capture.LayerStride();
    DecodePlane(planes[layer], shape, capture.k.data() + at, capture.v.data() + at);
  }
  return capture;
}

}  // namespace kvasir
