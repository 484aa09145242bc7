#include "service/eval/eval_prompt.h"

#include <chrono>
#include <utility>

#include "service/elapsed.h"

namespace kvasir {
namespace {

// Cut to `limit` ids, the last one (which ends the passage) kept.
void Cut(int32_t limit, std::vector<int32_t>* ids) {
  if (static_cast<int32_t>(ids->size()) <= limit) return;
  const int32_t last = ids->back();
  ids->resize(static_cast<size_t>(limit));
  ids->back() = last;
}

Status AddDocuments(Runtime& runtime, const EvalQuestion& question,
                    const EvalPromptOptions& options, EvalPrompt* prompt) {
  for (const EvalDocument& document : question.documents) {
    if (static_cast<int32_t>(prompt->chunks.size()) == options.max_documents) break;
    EvalChunk chunk;
    KVASIR_ASSIGN_OR_RETURN(chunk.token_ids,
                            runtime.chat_template().RenderDocument(document.title, document.text));
    Cut(options.document_tokens, &chunk.token_ids);
    chunk.text = document.title.empty() ? document.text : document.title + "\n" + document.text;
    prompt->chunks.push_back(std::move(chunk));
  }
  return Status::Ok();
}

Result<std::vector<int32_t>> Before(Runtime& runtime, const Chunk& chunk) {
  if (chunk.ordinal == 0) return std::vector<int32_t>();
  KVASIR_ASSIGN_OR_RETURN(const std::vector<Chunk> all,
                          runtime.documents().GetChunks(chunk.document_id));
  for (const Chunk& other : all) {
    if (other.ordinal == chunk.ordinal - 1) return other.token_ids;
  }
  return std::vector<int32_t>();
}

Status AddFound(Runtime& runtime, const EvalQuestion& question, const EvalPromptOptions& options,
                EvalPrompt* prompt) {
  const auto begin = std::chrono::steady_clock::now();
  KVASIR_ASSIGN_OR_RETURN(Retriever * retriever, runtime.retrieval());
  SearchRequest search;
  search.collection = options.collection;
  search.query = question.question;
  search.top_k = options.top_k;
  KVASIR_ASSIGN_OR_RETURN(const std::vector<SearchHit> hits, retriever->Search(search));
  if (hits.empty()) return NotFound("collection '" + options.collection + "' holds nothing");
  prompt->lookup_ms = MillisecondsSince(begin);
  for (const SearchHit& hit : hits) {
    EvalChunk chunk{hit.chunk.token_ids, hit.chunk.title + "\n" + hit.chunk.text, {}};
    KVASIR_ASSIGN_OR_RETURN(chunk.before_in_document, Before(runtime, hit.chunk));
    prompt->chunks.push_back(std::move(chunk));
  }
  return Status::Ok();
}

}  // namespace

PromptPlan EvalPrompt::Flat() const {
  PromptPlan plan;
  SegmentPlan& segment = plan.segments.emplace_back();
  segment.token_ids = anchor;
  for (const EvalChunk& chunk : chunks) {
    segment.token_ids.insert(segment.token_ids.end(), chunk.token_ids.begin(),
                             chunk.token_ids.end());
  }
  segment.token_ids.insert(segment.token_ids.end(), tail.begin(), tail.end());
  return plan;
}

int64_t EvalPrompt::tokens() const {
  size_t tokens = anchor.size() + tail.size();
  for (const EvalChunk& chunk : chunks) tokens += chunk.token_ids.size();
  return static_cast<int64_t>(tokens);
}

std::vector<int32_t> FixedPrimerOf(const Runtime& runtime, const EvalQuestion& question,
                                   const std::string& collection) {
  if (!question.has_documents) {
    const auto stored = runtime.documents().GetCollection(collection);
    if (stored.ok() && !stored->primer.empty()) return stored->primer;
  }
  return runtime.configured_primer();
}

Result<EvalPrompt> MakeEvalPrompt(Runtime& runtime, const EvalQuestion& question,
                                  const EvalPromptOptions& options) {
  EvalPrompt prompt;
  prompt.primer = FixedPrimerOf(runtime, question, options.collection);
  std::string system = runtime.config().collection_system;
  if (question.has_documents) {
    KVASIR_RETURN_IF_ERROR(AddDocuments(runtime, question, options, &prompt));
  } else {
    KVASIR_ASSIGN_OR_RETURN(const Collection collection,
                            runtime.documents().GetCollection(options.collection));
    system = collection.system_text;
    KVASIR_RETURN_IF_ERROR(AddFound(runtime, question, options, &prompt));
  }
  const std::vector<ChatMessage> messages = {{"user", question.question}};
  KVASIR_ASSIGN_OR_RETURN(ChatPrompt around,
                          runtime.chat_template().Render(messages, true, system));
  KVASIR_ASSIGN_OR_RETURN(const ChatPrompt bare,
                          runtime.chat_template().Render(messages, false, system));
  prompt.anchor = std::move(around.anchor);
  prompt.tail = std::move(around.tail);
  prompt.without_context = bare.anchor;
  prompt.without_context.insert(prompt.without_context.end(), bare.tail.begin(), bare.tail.end());
  if (!question.answers.empty()) {
    KVASIR_ASSIGN_OR_RETURN(std::vector<int32_t> gold,
                            runtime.tokenizer().EncodeContinuation(question.answers.front()));
    if (!gold.empty()) prompt.gold.push_back(std::move(gold));
  }
  return prompt;
}

}  // namespace kvasir
