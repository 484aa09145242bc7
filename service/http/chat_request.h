// GenerationRequest: a chat or text completion, parsed from JSON into typed fields and checked.
// No sockets here: bytes in, a value or an ApiError out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampling_params.h"
#include "service/http/api_error.h"
#include "service/rag_request.h"

namespace kvasir {

struct GenerationRequest {
  bool chat = true;  // false: /v1/completions
  std::string model;
  RagRequest rag;
  SamplingParams sampling;  // seed is drawn by the caller if seed_given is false
  bool seed_given = false;
  int32_t n = 1;
  int32_t max_tokens = 0;  // 0 = the default
  std::vector<std::string> stop;
  bool logprobs = false;
  bool echo = false;
  bool stream = false;
  bool include_usage = false;
};

struct RequestLimits {
  size_t documents = 256;
};

ApiResult<GenerationRequest> ParseChatRequest(std::string_view body, const RequestLimits& limits);
ApiResult<GenerationRequest> ParseCompletionRequest(std::string_view body,
                                                    const RequestLimits& limits);

}  // namespace kvasir
