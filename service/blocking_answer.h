// Runs a prepared prompt to its end on the caller's thread: for the command line and benchmarks.
#pragma once

#include <functional>
#include <string>

#include "service/rag_pipeline.h"

namespace kvasir {

struct BlockingAnswer {
  std::string text;
  int64_t tokens = 0;
  double ttft_ms = 0;  // from the beginning of Prepare to the first token
  RequestTiming timing;
  LostRows lost;  // to be moved in the prompt's account
};

// `show` (may be null) gets the text as it grows.
Result<BlockingAnswer> AnswerBlocking(Runtime& runtime, RagPipeline& rag,
                                      const PreparedPrompt& prompt, const SamplingParams& sampling,
                                      int32_t max_tokens,
                                      const std::function<void(const std::string&)>& show = nullptr,
                                      bool ignore_eos = false);

}  // namespace kvasir
