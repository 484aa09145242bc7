#include "cache/chunk_record.h"

#include <cstring>

#include "cache/byte_io.h"
#include "cache/kv_record.h"

namespace kvasir {
namespace {

constexpr uint32_t kChunkMagic = 0x4352564b;  // "KVRC"
constexpr uint32_t kChunkVersion = 1;

uint64_t Seal(const ChunkKey& key, std::string_view body) {
  return Digest64Of(key.Bytes() + std::string(body));
}

void PutShape(ByteWriter& out, const ChunkShape& shape) {
  out.Put(shape.layers).Put(shape.tokens).Put(shape.kv_heads).Put(shape.head_dim).Put(shape.codec);
}

ChunkShape GetShape(ByteReader& in) {
  ChunkShape shape;
  shape.layers = in.Get<int32_t>();
  shape.tokens = in.Get<int32_t>();
  shape.kv_heads = in.Get<int32_t>();
  shape.head_dim = in.Get<int32_t>();
  shape.codec = static_cast<KvCodec>(in.Get<uint8_t>());
  return shape;
}

bool Consistent(const ChunkRecord& record) {
  return ShapeInBounds(record.shape) &&
         record.token_ids.size() == static_cast<size_t>(record.shape.tokens) &&
         !record.groups.empty() && record.groups.size() <= static_cast<size_t>(record.shape.layers);
}

}  // namespace

uint64_t ChunkRecord::bytes() const {
  uint64_t total = 0;
  for (const Group& group : groups) total += group.bytes;
  return total;
}

std::string ChunkRecord::Encode(const ChunkKey& key) const {
  ByteWriter out;
  out.Put(kChunkMagic).Put(kChunkVersion);
  PutShape(out, shape);
  out.Put(generation).Put(created_unix_s);
  out.PutBytes(
      {reinterpret_cast<const char*>(token_ids.data()), token_ids.size() * sizeof(int32_t)});
  out.Put(static_cast<uint32_t>(groups.size()));
  for (const Group& group : groups) out.Put(group.bytes).Put(group.header_digest);
  out.Put(Seal(key, out.bytes()));
  return out.Take();
}

Result<ChunkRecord> ChunkRecord::Parse(const ChunkKey& key, std::string_view bytes) {
  const Status damaged = DataLoss("damaged record of chunk " + key.Id());
  if (bytes.size() < sizeof(uint64_t)) return damaged;
  const std::string_view body = bytes.substr(0, bytes.size() - sizeof(uint64_t));
  if (ByteReader(bytes.substr(body.size())).Get<uint64_t>() != Seal(key, body)) return damaged;
  ByteReader in(body);
  if (in.Get<uint32_t>() != kChunkMagic || in.Get<uint32_t>() != kChunkVersion) return damaged;
  ChunkRecord record;
  record.shape = GetShape(in);
  record.generation = in.Get<uint64_t>();
  record.created_unix_s = in.Get<int64_t>();
  const std::string_view ids = in.GetBytes();
  record.token_ids.resize(ids.size() / sizeof(int32_t));
  if (!ids.empty()) {
    std::memcpy(record.token_ids.data(), ids.data(), record.token_ids.size() * sizeof(int32_t));
  }
  const auto groups = in.Get<uint32_t>();
  for (uint32_t i = 0; i < groups && in.ok(); ++i) {
    record.groups.push_back({in.Get<uint64_t>(), in.Get<uint64_t>()});
  }
  if (!in.AtEnd() || !Consistent(record)) return damaged;
  return record;
}

std::string GroupKey(const ChunkKey& key, uint64_t generation, size_t group) {
  std::string out = key.Bytes();
  AppendBigEndian(out, generation);
  AppendBigEndian(out, static_cast<uint16_t>(group));
  return out;
}

}  // namespace kvasir
