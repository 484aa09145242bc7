// The one table of bounds of every numeric field that a request may carry.
#pragma once

#include <optional>
#include <string_view>

namespace kvasir {

struct Bound {
  std::string_view field;
  double low, high;
};

inline constexpr Bound kBounds[] = {
    {"n", 1, 16},
    {"max_tokens", 1, 1 << 20},
    {"max_completion_tokens", 1, 1 << 20},
    {"temperature", 0, 2},
    {"top_p", 0, 1},
    {"min_p", 0, 1},
    {"top_k", 0, 256},  // documents to retrieve
    {"presence_penalty", -2, 2},
    {"frequency_penalty", -2, 2},
    {"repetition_penalty", 0.01, 10},
    {"top_logprobs", 0, 20},
    {"logprobs", 0, 20},
    {"seed", -9223372036854775808.0, 9223372036854775807.0},
    {"logit_bias", -100, 100},
    {"limit", 1, 10000},
    {"dimensions", 1, 65536},
};

inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr size_t kMaxSaltBytes = 256;
inline constexpr size_t kMaxFilters = 64;
inline constexpr size_t kMaxLogitBias = 1024;
inline constexpr size_t kMaxMessages = 4096;
inline constexpr size_t kMaxEmbeddingInputs = 2048;
inline constexpr int kMaxJsonDepth = 24;

constexpr std::optional<Bound> BoundOf(std::string_view field) {
  for (const Bound& bound : kBounds) {
    if (bound.field == field) return bound;
  }
  return std::nullopt;
}

}  // namespace kvasir
