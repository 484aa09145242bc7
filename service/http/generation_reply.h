// GenerationReply: the JSON of chat and text completions, whole or as stream chunks, exactly as
// the OpenAI SDKs read them. No sockets: values in, bytes out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"
#include "service/answer_text.h"
#include "service/rag_request.h"

namespace kvasir {

struct ReplyContext {
  bool chat = true;
  std::string id;  // chatcmpl-... or cmpl-...
  int64_t created = 0;
  std::string model;
  const Tokenizer* tokenizer = nullptr;
  CacheReport cache;
  bool explain = false;  // names the documents' titles, sources and scores too
  bool logprobs = false;
};

// Of all choices that were drafted by a run of their own (mode optimistic).
struct DraftUsage {
  int64_t drafted = 0, stood = 0;  // tokens
  double first_ms = -1;            // to the first drafted token; below 0 = none came
  std::string problem;             // why a choice had no draft, or not a whole one
};

struct ReplyUsage {
  int64_t completion_tokens = 0;
  DraftCounts drafts;
  double ttft_ms = 0;  // from the first byte of work to the first token
  RequestTiming timing;
  DraftUsage draft;
};

std::string FinishReasonName(FinishReason reason);

// The whole reply, one choice an answer. `prefixes` (echo) is put before each text.
std::string WholeReply(const ReplyContext& context, std::vector<AnswerText*> answers,
                       const std::string& prefix, const ReplyUsage& usage);

// The opening chunk of a choice: delta with the role (chat only; "" for completions).
std::string OpeningChunk(const ReplyContext& context, int32_t index);
// A piece of text, with the logprobs of its tokens.
std::string TextChunk(const ReplyContext& context, int32_t index, const std::string& text,
                      const std::vector<ShownToken>& logprobs);
// Drafted text of a choice, which may be taken back: no delta, the text in chunk_cache.provisional.
std::string ProvisionalChunk(const ReplyContext& context, int32_t index, const std::string& text);
// Of a choice's provisional text only the first `characters` (Unicode code points) stand.
std::string CorrectionChunk(const ReplyContext& context, int32_t index, int64_t characters);
// The end of a choice. `usage` is set on the stream's last chunk only: it carries the
// chunk_cache object, so that every stream has the accounting.
std::string FinishChunk(const ReplyContext& context, int32_t index, FinishReason reason,
                        const ReplyUsage* usage);
// choices: [], usage: {...}: after stream_options.include_usage.
std::string UsageChunk(const ReplyContext& context, const ReplyUsage& usage);

}  // namespace kvasir
