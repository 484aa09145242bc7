// FusionPolicy: how chunk KV is repaired, and CacheMode: what a request asked for. Plain values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/core/status.h"

namespace kvasir {

enum class PolicyKind : uint8_t {
  kExact,   // every row computed, nothing reused
  kPrefix,  // longest exact prefix reused; text equal to kExact's
  kConcat,  // chunk KV as stored; only tail and misses computed
  kLink,    // concat, and the first link_tokens rows of every chunk computed again
};

struct FusionPolicy {
  PolicyKind kind = PolicyKind::kPrefix;
  int32_t link_tokens = 0;  // kLink only, in [1, kMaxLinkTokens]

  bool fused() const { return kind == PolicyKind::kConcat || kind == PolicyKind::kLink; }
  std::string Name() const;  // "exact", "prefix", "concat", "link(16)"; ParsePolicy reads it back
  friend bool operator==(const FusionPolicy&, const FusionPolicy&) = default;
};

inline constexpr int32_t kMaxLinkTokens = 1024;
// What `auto` and `fused` mean when no policy is named.
inline constexpr FusionPolicy kDefaultFusedPolicy{PolicyKind::kLink, 16};

// "exact", "prefix", "concat", "link(16)", "link16", "link" (the default's k).
// kInvalidArgument names the choices or the bounds.
Result<FusionPolicy> ParsePolicy(std::string_view text);

enum class CacheMode : uint8_t {
  kAuto,    // fused where there are documents and the model allows it, else prefix
  kExact,   // the full-attention answer, nothing reused
  kPrefix,  // exact prefixes only
  kFused,   // chunk KV; an error if the model's KV cannot be moved
  kOff,     // like exact, and nothing is stored either
};
std::string_view CacheModeName(CacheMode mode);
Result<CacheMode> ParseCacheMode(std::string_view text);

struct PolicyRequest {
  CacheMode mode = CacheMode::kAuto;
  std::optional<FusionPolicy> policy;  // from chunk_cache.policy
  bool has_documents = false;
  bool movable = true;          // ReusePolicy::movable of the model
  std::string why_not_movable;  // ReusePolicy::why_not
};

// The policy a request runs under. kInvalidArgument: mode and policy contradict each other;
// kUnimplemented: a fused policy was asked for by name and the model's KV cannot be moved.
Result<FusionPolicy> ResolvePolicy(const PolicyRequest& request);

}  // namespace kvasir
