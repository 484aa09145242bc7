// The `meta` record of a stored chunk. Private to cache/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/chunk_key.h"
#include "cache/kv_codec.h"
#include "kernels/core/status.h"

namespace kvasir {

struct ChunkRecord {
  struct Group {
    uint64_t bytes = 0;
    uint64_t header_digest = 0;  // names the record's content: it covers the payload's digest
  };
  ChunkShape shape;
  uint64_t generation = 0;  // distinguishes the payloads of successive chunks of one key
  int64_t created_unix_s = 0;
  std::vector<int32_t> token_ids;
  std::vector<Group> groups;

  uint64_t bytes() const;
  // Bound to its key: a record found under another key does not parse.
  std::string Encode(const ChunkKey& key) const;
  static Result<ChunkRecord> Parse(const ChunkKey& key, std::string_view bytes);  // kDataLoss
};

// Key of group `group` in the `kv` family.
std::string GroupKey(const ChunkKey& key, uint64_t generation, size_t group);

}  // namespace kvasir
