// RagRequest: one question as the service understands it, whichever door it came by.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/certificate.h"
#include "cache/fusion_policy.h"
#include "engine/tokenizer/chat_template.h"
#include "kernels/core/prompt_plan.h"
#include "retrieval/retriever.h"

namespace kvasir {

// A document as a request names it: known by id, given as text, or both (text wins).
struct DocumentInput {
  std::string id, title, text;
  bool has_text = false;
};

struct CacheOptions {
  CacheMode mode = CacheMode::kAuto;
  std::string policy;           // "" = the configured one
  bool compute_missing = true;  // false: a missing chunk is an error
  bool store = true;            // whether computed chunks are kept
  bool explain = false;
  bool provisional = false;  // optimistic: drafted text is streamed before it is verified
};

struct RagRequest {
  std::vector<ChatMessage> messages;
  // A raw completion instead of a conversation: never with documents.
  std::vector<int32_t> raw_prompt;
  std::string raw_text;
  bool raw = false;

  std::vector<DocumentInput> documents;  // in this order in the prompt
  std::string collection;                // retrieve from it; "" = no retrieval
  int32_t top_k = 8;
  SearchFilter filter;  // of the retrieval
  CacheOptions cache;
  std::string cache_salt;  // KV is shared only among requests of the same salt
  std::string tenant;      // TenantOf the API key: past answers are shared only within it
};

// What happened to one document (or retrieved chunk) of a request.
struct DocumentReport {
  std::string id, title, source;
  // hit_pool | hit_memory | hit_disk | computed | computed_sooner (stored, but loading it would
  // have taken longer)
  std::string status;
  int32_t tokens = 0;
  double score = 0;  // of retrieval; 0 if it was named
};

// Under mode optimistic: what the answer was drafted over (engine/draft_run.h).
struct DraftReport {
  std::string policy;
  PromptAccount account;  // of the draft's prompt, not of the answer's
  std::string problem;    // why there is no draft; "" = there is one
};

struct CacheReport {
  std::string mode, policy;
  std::string chosen_by;  // how `auto` came to the policy: "eval" or "default"; "" = it was named
  PromptAccount account;
  int32_t hits = 0, misses = 0;
  double lookup_ms = 0;  // retrieval and keys
  double load_ms = 0;    // stored KV to pool, and computing what was missing
  double repair_ms = 0;  // choosing rows to compute again
  std::vector<DocumentReport> documents;
  std::optional<CertificateReport> certificate;  // under certify
  std::optional<DraftReport> draft;              // under mode optimistic
};

}  // namespace kvasir
