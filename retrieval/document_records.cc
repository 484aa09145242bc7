#include "retrieval/document_records.h"

#include <limits>
#include <utility>

#include "retrieval/record.h"

namespace kvasir {
namespace {

std::string BigEndian(ChunkId id) {
  std::string out;
  for (int shift = 56; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(static_cast<uint64_t>(id) >> shift));
  }
  return out;
}

std::string Joined(std::string_view prefix, std::string_view name) {
  return std::string(prefix).append(name);
}

std::string ChunkName(ChunkId id) { return "chunk " + std::to_string(id); }

void WriteMetadata(const Metadata& metadata, RecordWriter* out) {
  out->Int(static_cast<int64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    out->Text(key);
    out->Text(value);
  }
}

Metadata ReadMetadata(RecordReader* in) {
  Metadata metadata;
  for (size_t count = in->Count(2 * sizeof(int64_t)); count > 0; --count) {
    std::string key = in->Text();
    metadata[std::move(key)] = in->Text();
  }
  return metadata;
}

// A record that says another identity than its key is foreign.
Status CheckIdentity(bool same, const std::string& what) {
  return same ? Status::Ok()
              : DataLoss("the stored record of " + what + " belongs to something else");
}

}  // namespace

std::string CollectionKey(std::string_view name) { return Joined(kCollectionPrefix, name); }
std::string DocumentKey(std::string_view id) { return Joined("d/", id); }
std::string ChunkKeyOf(ChunkId id) { return Joined(kChunkPrefix, BigEndian(id)); }
std::string ListPrefix(std::string_view collection) {
  return Joined("l/", collection) + std::string(1, '\0');
}
std::string VectorPrefix(std::string_view collection) {
  return Joined("v/", collection) + std::string(1, '\0');
}
std::string VectorKey(std::string_view collection, ChunkId id) {
  return VectorPrefix(collection) + BigEndian(id);
}

std::string BehindPrefixOf(ChunkId primer) { return Joined(kBehindPrefix, BigEndian(primer)); }
std::string BehindKey(ChunkId primer, ChunkId chunk) {
  return BehindPrefixOf(primer) + BigEndian(chunk);
}
ChunkId PrimerOf(std::string_view behind_key) {
  return behind_key.size() < 8 ? -1 : ChunkIdOf(behind_key.substr(0, behind_key.size() - 8));
}

ChunkId ChunkIdOf(std::string_view key) {
  if (key.size() < 8) return -1;
  uint64_t id = 0;
  for (const char c : key.substr(key.size() - 8)) id = id << 8 | static_cast<uint8_t>(c);
  return static_cast<ChunkId>(id);
}

std::string EncodeCollection(const Collection& c) {
  RecordWriter out(RecordKind::kCollection);
  out.Text(c.name);
  out.Text(c.model_digest);
  out.Text(c.embedder);
  out.Int(c.dimension);
  out.Text(c.system_text);
  out.Int(c.created_ms);
  out.Text(c.ingestion);
  out.Array(std::span<const int32_t>(c.primer));
  out.Text(c.codec);
  return out.Finish();
}

Result<Collection> DecodeCollection(std::string_view bytes, std::string_view name) {
  const std::string what = "collection " + std::string(name);
  KVASIR_ASSIGN_OR_RETURN(RecordReader in,
                          RecordReader::Open(RecordKind::kCollection, bytes, what));
  Collection c;
  c.name = in.Text();
  c.model_digest = in.Text();
  c.embedder = in.Text();
  c.dimension = static_cast<int32_t>(in.Int());
  c.system_text = in.Text();
  c.created_ms = in.Int();
  if (in.version() >= 2) {
    c.ingestion = in.Text();
    c.primer = in.Array<int32_t>();
  }
  if (in.version() >= 3) c.codec = in.Text();
  KVASIR_RETURN_IF_ERROR(in.Finish());
  KVASIR_RETURN_IF_ERROR(CheckIdentity(c.name == name && c.dimension > 0, what));
  return c;
}

std::string EncodeDocument(const Document& d) {
  RecordWriter out(RecordKind::kDocument);
  out.Text(d.id);
  out.Text(d.collection);
  out.Text(d.title);
  out.Text(d.source);
  out.Text(d.content_digest);
  out.Int(d.version);
  WriteMetadata(d.metadata, &out);
  out.Int(d.created_ms);
  out.Int(d.updated_ms);
  out.Int(d.tokens);
  out.Array(std::span<const ChunkId>(d.chunks));
  return out.Finish();
}

Result<Document> DecodeDocument(std::string_view bytes, std::string_view id) {
  const std::string what = "document " + std::string(id);
  KVASIR_ASSIGN_OR_RETURN(RecordReader in, RecordReader::Open(RecordKind::kDocument, bytes, what));
  Document d;
  d.id = in.Text();
  d.collection = in.Text();
  d.title = in.Text();
  d.source = in.Text();
  d.content_digest = in.Text();
  d.version = in.Int();
  d.metadata = ReadMetadata(&in);
  d.created_ms = in.Int();
  d.updated_ms = in.Int();
  d.tokens = in.Int();
  d.chunks = in.Array<ChunkId>();
  KVASIR_RETURN_IF_ERROR(in.Finish());
  KVASIR_RETURN_IF_ERROR(CheckIdentity(d.id == id, what));
  return d;
}

std::string EncodeChunk(const Chunk& c) {
  RecordWriter out(RecordKind::kChunk);
  out.Int(c.id);
  out.Text(c.document_id);
  out.Int(c.ordinal);
  out.Text(c.title);
  out.Text(c.text);
  out.Array(std::span<const int32_t>(c.token_ids));
  out.Int(c.primer);
  return out.Finish();
}

Result<Chunk> DecodeChunk(std::string_view bytes, ChunkId id) {
  const std::string what = ChunkName(id);
  KVASIR_ASSIGN_OR_RETURN(RecordReader in, RecordReader::Open(RecordKind::kChunk, bytes, what));
  Chunk c;
  c.id = in.Int();
  c.document_id = in.Text();
  c.ordinal = static_cast<int32_t>(in.Int());
  c.title = in.Text();
  c.text = in.Text();
  c.token_ids = in.Array<int32_t>();
  if (in.version() >= 2) c.primer = in.Int();
  KVASIR_RETURN_IF_ERROR(in.Finish());
  KVASIR_RETURN_IF_ERROR(CheckIdentity(c.id == id, what));
  return c;
}

std::string EncodeVector(ChunkId id, const std::vector<float>& vector) {
  RecordWriter out(RecordKind::kVector);
  out.Int(id);
  out.Array(std::span<const float>(vector));
  return out.Finish();
}

Result<std::vector<float>> DecodeVector(std::string_view bytes, ChunkId id) {
  const std::string what = "the vector of " + ChunkName(id);
  KVASIR_ASSIGN_OR_RETURN(RecordReader in, RecordReader::Open(RecordKind::kVector, bytes, what));
  const ChunkId owner = in.Int();
  std::vector<float> vector = in.Array<float>();
  KVASIR_RETURN_IF_ERROR(in.Finish());
  KVASIR_RETURN_IF_ERROR(CheckIdentity(owner == id, what));
  return vector;
}

std::string EncodeCounter(ChunkId next) {
  RecordWriter out(RecordKind::kCounter);
  out.Int(next);
  return out.Finish();
}

Result<ChunkId> DecodeCounter(std::string_view bytes) {
  KVASIR_ASSIGN_OR_RETURN(RecordReader in,
                          RecordReader::Open(RecordKind::kCounter, bytes, "the chunk counter"));
  const ChunkId next = in.Int();
  KVASIR_RETURN_IF_ERROR(in.Finish());
  if (next < 1) return DataLoss("the stored chunk counter is " + std::to_string(next));
  return next;
}

}  // namespace kvasir
