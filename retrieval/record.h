// Records: how DocumentStore's values lie in the store. Little-endian:
//   magic u8 (kind) | version u8 | fields | checksum u64 over all before.
// A reader fails softly: after the first bad field every read gives zero or "" and ok() is false,
// so that decoding reads straight down and checks once. Not thread-safe; one per record.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

static_assert(std::endian::native == std::endian::little, "records are little-endian");

enum class RecordKind : uint8_t { kCollection = 0xC1, kDocument, kChunk, kVector, kCounter };

// The version that is written; older ones are read.
//   collection 2: ingestion condition and primer; 3: codec;  chunk 2: the chunk that is its primer
constexpr uint8_t RecordVersionOf(RecordKind kind) {
  if (kind == RecordKind::kCollection) return 3;
  return kind == RecordKind::kChunk ? 2 : 1;
}

// 64 bits over `bytes`. Every changed 8-byte word changes it for sure; more damage than that passes
// with probability 2^-64.
uint64_t RecordChecksum(std::string_view bytes);

class RecordWriter {
 public:
  explicit RecordWriter(RecordKind kind)
      : out_{static_cast<char>(kind), static_cast<char>(RecordVersionOf(kind))} {}

  void Int(int64_t value) { Raw(&value, sizeof value); }
  void Text(std::string_view text) {
    Int(static_cast<int64_t>(text.size()));
    out_.append(text);
  }
  template <typename T>
  void Array(std::span<const T> values) {
    Int(static_cast<int64_t>(values.size()));
    Raw(values.data(), values.size_bytes());
  }
  std::string Finish() {
    const uint64_t checksum = RecordChecksum(out_);
    Raw(&checksum, sizeof checksum);
    return std::move(out_);
  }

 private:
  void Raw(const void* data, size_t bytes) { out_.append(static_cast<const char*>(data), bytes); }
  std::string out_;
};

class RecordReader {
 public:
  // kDataLoss: torn, corrupt or of another kind; kFailedPrecondition: a newer version. `what` names
  // the record in messages.
  static Result<RecordReader> Open(RecordKind kind, std::string_view bytes, std::string what);

  int64_t Int();
  std::string Text();
  template <typename T>
  std::vector<T> Array() {
    const size_t count = Count(sizeof(T));
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), Take(count * sizeof(T)).data(), count * sizeof(T));
    return values;
  }
  // Elements that follow, each of at least `least_bytes`; 0 if there cannot be as many.
  size_t Count(size_t least_bytes);

  bool ok() const { return ok_; }
  uint8_t version() const { return version_; }
  // Ok if all fields were there and nothing follows.
  Status Finish() const;

 private:
  RecordReader(std::string_view fields, uint8_t version, std::string what)
      : rest_(fields), what_(std::move(what)), version_(version) {}
  std::string_view Take(size_t bytes);

  std::string_view rest_;
  std::string what_;
  uint8_t version_;
  bool ok_ = true;
};

}  // namespace kvasir
