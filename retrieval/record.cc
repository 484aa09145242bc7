#include "retrieval/record.h"

#include <algorithm>

namespace kvasir {
namespace {

constexpr size_t kEnvelope = 2 + sizeof(uint64_t);

Status Corrupt(const std::string& what) {
  return DataLoss("the stored record of " + what + " is corrupt: delete and ingest it again");
}

}  // namespace

// One step is a bijection of the state for a given word and of the word for a given state.
uint64_t RecordChecksum(std::string_view bytes) {
  uint64_t state = 0x243F6A8885A308D3 ^ bytes.size();
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, std::min<size_t>(8, bytes.size() - at));
    state = std::rotl((state ^ word) * 0x9E3779B97F4A7C15, 29);
  }
  state ^= state >> 32;
  return state * 0xD6E8FEB86659FD93;
}

Result<RecordReader> RecordReader::Open(RecordKind kind, std::string_view bytes, std::string what) {
  if (bytes.size() < kEnvelope) return Corrupt(what);
  uint64_t checksum = 0;
  std::memcpy(&checksum, bytes.data() + bytes.size() - sizeof checksum, sizeof checksum);
  const std::string_view body = bytes.substr(0, bytes.size() - sizeof checksum);
  if (checksum != RecordChecksum(body)) return Corrupt(what);
  if (static_cast<uint8_t>(body[0]) != static_cast<uint8_t>(kind)) return Corrupt(what);
  const auto version = static_cast<uint8_t>(body[1]);
  if (version < 1 || version > RecordVersionOf(kind)) {
    return FailedPrecondition("the stored record of " + what + " has version " +
                              std::to_string(version) + ", this program reads 1 to " +
                              std::to_string(RecordVersionOf(kind)));
  }
  return RecordReader(body.substr(2), version, std::move(what));
}

std::string_view RecordReader::Take(size_t bytes) {
  if (!ok_ || bytes > rest_.size()) {
    ok_ = false;
    return {};
  }
  const std::string_view taken = rest_.substr(0, bytes);
  rest_.remove_prefix(bytes);
  return taken;
}

int64_t RecordReader::Int() {
  int64_t value = 0;
  const std::string_view bytes = Take(sizeof value);
  if (ok_) std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

size_t RecordReader::Count(size_t least_bytes) {
  const int64_t count = Int();
  if (ok_ && count >= 0 && static_cast<uint64_t>(count) <= rest_.size() / least_bytes) {
    return static_cast<size_t>(count);
  }
  ok_ = false;
  return 0;
}

std::string RecordReader::Text() { return std::string(Take(Count(1))); }

Status RecordReader::Finish() const { return ok_ && rest_.empty() ? Status::Ok() : Corrupt(what_); }

}  // namespace kvasir
