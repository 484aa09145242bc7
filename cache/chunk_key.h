// ChunkKey: the identity of a chunk's KV, and Fingerprint: everything but the tokens that decides
// its values. Any difference is another key, hence a miss. Plain values, thread-safe as such.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cache/digest.h"
#include "kernels/core/kv_layout.h"
#include "kernels/core/rope.h"
#include "kernels/core/status.h"

namespace kvasir {

// How stored KV is written down (cache/kv_codec.h).
enum class KvCodec : uint8_t { kInt8 = 1, kF16 = 2, kF32 = 3, kInt4 = 4 };
std::string_view KvCodecName(KvCodec codec);  // "int8", "f16", "f32", "int4"
// Also "fp16" and "fp32", as settings spell them. kInvalidArgument names the choices.
Result<KvCodec> ParseKvCodec(std::string_view name);

// What stood in front of a chunk while it was encoded.
enum class EncodingContext : uint8_t {
  kBare = 0,    // nothing: position 0. An anchor's own KV is stored like this.
  kAnchor = 1,  // the collection's anchor
  kPrimer = 2,  // the anchor and one passage (primer_id)
};

struct FingerprintFields {
  std::string model_digest;  // Model::digest: weights and what changes KV
  std::string tokenizer;     // tokenizer and template family
  EncodingContext context = EncodingContext::kBare;
  std::vector<int32_t> anchor_ids;    // must be empty for kBare
  std::string primer_id;              // digest of the primer's token ids; kPrimer only
  KvLayout layout;                    // geometry, and the pool type that attention read from
  std::vector<RopeTable> ropes;       // ModelConfig::ropes
  std::vector<int32_t> layer_rope;    // ModelConfig::layer_rope
  std::vector<int32_t> layer_window;  // ModelConfig::layer_window
  KvCodec codec = KvCodec::kInt8;
  // Options of the kernels that change KV by more than the order of fp32 sums, as one string:
  // "matmul=f32". Instruction set and thread count only change that order (about 1e-6, far
  // below a quantisation step), so leaving them out lets machines share a store.
  std::string numerics;
};

// Digest of all fields and of the record format's version.
Digest128 Fingerprint(const FingerprintFields& fields);

// The id of a primer or any other token run, for primer_id.
Digest128 DigestTokens(std::span<const int32_t> token_ids);

struct ChunkKey {
  std::string name_space;  // tenant and collection, from the authenticated key; any bytes
  Digest128 fingerprint;
  Digest128 tokens;  // XXH3-128 of the token ids: not an identity, ids are compared on every hit

  // Domain-separated and length-prefixed: keys of different namespaces never collide or nest.
  // Order: namespace, tokens, fingerprint, so that the same text under another fingerprint is
  // a neighbour.
  std::string Bytes() const;
  static Result<ChunkKey> Parse(std::string_view bytes);  // kDataLoss if malformed
  // The bytes that all keys of a namespace begin with.
  static std::string NamespaceBytes(std::string_view name_space);
  std::string Id() const { return tokens.Hex(); }  // short public name within a collection

  friend bool operator==(const ChunkKey&, const ChunkKey&) = default;
};

ChunkKey MakeChunkKey(std::string_view name_space, const Digest128& fingerprint,
                      std::span<const int32_t> token_ids);

struct ChunkKeyHash {
  size_t operator()(const ChunkKey& key) const {
    return key.tokens.low ^ (key.fingerprint.low * 0x9e3779b97f4a7c15u) ^
           std::hash<std::string>()(key.name_space);
  }
};

}  // namespace kvasir
