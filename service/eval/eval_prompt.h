// EvalPrompt: a question of the questions file as runs of token ids, ready for any row.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "service/eval/questions.h"
#include "service/runtime.h"

namespace kvasir {

struct EvalChunk {
  std::vector<int32_t> token_ids;
  std::string text;                         // what an embedder sees
  std::vector<int32_t> before_in_document;  // the part before it; empty = none or not known
};

struct EvalPrompt {
  std::vector<int32_t> anchor, tail;  // around the chunks
  std::vector<EvalChunk> chunks;
  std::vector<int32_t> primer;             // FixedPrimerOf
  std::vector<int32_t> without_context;    // the question alone, in the same template
  std::vector<std::vector<int32_t>> gold;  // the first gold answer's tokens, if any
  double lookup_ms = 0;                    // retrieval

  PromptPlan Flat() const;  // one exact segment
  int64_t tokens() const;
};

struct EvalPromptOptions {
  std::string collection;  // searched for questions without documents
  int32_t top_k = 8;
  int32_t document_tokens = 256;  // a document of the questions file is cut here
  int32_t max_documents = 256;    // so many of a question's, the first
};

// The fixed primer that a question's chunks are encoded behind: the searched collection's own, or
// the configured one for documents that the question brings.
std::vector<int32_t> FixedPrimerOf(const Runtime& runtime, const EvalQuestion& question,
                                   const std::string& collection);

// kNotFound: no such collection, or nothing found in it.
Result<EvalPrompt> MakeEvalPrompt(Runtime& runtime, const EvalQuestion& question,
                                  const EvalPromptOptions& options);

}  // namespace kvasir
