// FusionPolicy: how chunk KV is repaired, and CacheMode: what a request asked for. Plain values.
//
// Written as terms joined by '+', each with its parameters (cache/policy_parser.cc):
//   exact | prefix(order=as_given) | concat | certify(eps,alpha)
//   link(k)                first k rows of every chunk (EPIC)
//   blend(r)               top share r by deviation of V at layer 1 (CacheBlend)
//   query(r,rows=,layers=,heads=,smooth=,floor=,rounds=,mass=,draft=)
//                          top share r by the question's attention (ProphetKV, FusionRAG)
//   link(8)+query(.1)      the union of what its terms choose
//   query(.1)+shift        the rows left as stored move by the mean change of the chosen ones
//                          (AgentKVShift)
//   parallel(T,s)          all chunks share one range of positions; the question's attention to
//                          them has temperature T and its sum counts by s (APE)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

enum class PolicyKind : uint8_t {
  kExact,    // every row computed, nothing reused
  kPrefix,   // longest exact prefix reused; text equal to kExact's
  kFused,    // chunk KV as stored, and the rows that the terms choose computed again
  kCertify,  // kFused with ever more rows until the answer stands still, at last kExact
};

// How a row's attention from several heads becomes one score.
enum class HeadMerge : uint8_t { kSum, kMax };

// How query(r) chooses. Shares are of the reused chunk rows.
struct QuerySelector {
  double ratio = 0;  // share of rows computed again; 0 = no such term
  int32_t rows = 4;  // last prompt rows that are asked; 0 = all behind the chunks
  double layer_begin = 2.0 / 3, layer_end = 1;  // depths asked, as shares of the layers
  HeadMerge heads = HeadMerge::kSum;
  int32_t smooth = 1;  // scores are averaged over so many neighbours, odd
  double floor = 0;    // share of every chunk's rows that is taken whatever its scores
  int32_t rounds = 1;  // looks; each chooses its part of the rows with the earlier ones repaired
  double mass = 1;     // fewer rows if so much of the attention on the chunks is covered
  int32_t draft = 0;   // answer tokens decoded on the way, whose rows are asked too
  friend bool operator==(const QuerySelector&, const QuerySelector&) = default;
};

// Order of the chunks in the prompt.
enum class ChunkOrder : uint8_t {
  kAsGiven,
  kHash,  // by content: the same set of chunks is the same prefix
  kTree,  // what the prefix index holds already first, the rest by content, the best chunk last
};

struct FusionPolicy {
  PolicyKind kind = PolicyKind::kPrefix;
  int32_t link_tokens = 0;  // [1, kMaxLinkTokens]; 0 = no such term
  double blend_ratio = 0;   // (0, 1]; 0 = no such term
  QuerySelector query = {};
  ChunkOrder order = ChunkOrder::kAsGiven;  // kPrefix
  double epsilon = 0.05, alpha = 0.1;       // kCertify: P(KL > epsilon) <= alpha
  bool shift = false;                       // kFused, with terms that choose rows
  bool parallel = false;                    // kFused, without other terms
  double temperature = 1, scale = 1;        // of parallel

  bool fused() const { return kind == PolicyKind::kFused || kind == PolicyKind::kCertify; }
  // Whether rows are chosen by passes through the model.
  bool looks() const { return blend_ratio > 0 || query.ratio > 0 || shift; }
  std::string Name() const;  // "exact", "link(16)+query(0.05)"; ParsePolicy reads it back
  friend bool operator==(const FusionPolicy&, const FusionPolicy&) = default;

  static FusionPolicy Exact() { return {PolicyKind::kExact}; }
  static FusionPolicy Prefix() { return {PolicyKind::kPrefix}; }
  static FusionPolicy Concat() { return {PolicyKind::kFused}; }
  static FusionPolicy Link(int32_t tokens) { return {PolicyKind::kFused, tokens}; }
  static FusionPolicy Query(double ratio) {
    FusionPolicy policy{PolicyKind::kFused};
    policy.query.ratio = ratio;
    return policy;
  }
};

inline constexpr int32_t kMaxLinkTokens = 1024;
inline constexpr double kLeastContextScale = 0.1, kMostContextScale = 2;
inline constexpr int32_t kMaxSelectorRows = 1024;
inline constexpr int32_t kMaxSelectorRounds = 8;
inline constexpr int32_t kMaxSelectorDraft = 64;
// What `auto` and `fused` mean when no policy is named and no evaluation has chosen one.
FusionPolicy DefaultFusedPolicy();

// kInvalidArgument names the choices or the bounds. "link" alone is link(16); "link16" is read too.
Result<FusionPolicy> ParsePolicy(std::string_view text);
// A comma-separated list, where commas inside parentheses belong to a policy.
Result<std::vector<FusionPolicy>> ParsePolicyList(std::string_view text);

enum class CacheMode : uint8_t {
  kAuto,    // fused where there are documents and the model allows it, else prefix
  kExact,   // the full-attention answer, nothing reused
  kPrefix,  // exact prefixes only
  kFused,   // chunk KV; an error if the model's KV cannot be moved
  kOff,     // like exact, and nothing is stored either
  // The exact answer, drafted over chunk KV while its prompt is computed: the policy is the
  // draft's. Like exact without documents, or if the model's KV cannot be moved.
  kOptimistic,
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
