// RagPipeline: a question to a prompt made of cached chunk KV, and that prompt to tokens.
//
//   RagRequest -> documents (named or retrieved) -> chunk KV (look-ups; misses are computed by the
//   same path as ingestion) -> Assembler -> Engine
// Thread-safe. Prepare blocks (disk, embedding, misses); Submit does not.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/assembler.h"
#include "engine/draft_run.h"
#include "service/auditor.h"
#include "service/certifier.h"
#include "service/chunk_prefill.h"
#include "service/ingest_pipeline.h"
#include "service/rag_request.h"
#include "service/repair.h"
#include "service/runtime.h"

namespace kvasir {

struct PreparedPrompt {
  PromptPlan plan;
  // Mode optimistic: the prompt that its draft is made over; null or empty: none.
  std::shared_ptr<PromptPlan> draft;
  CacheReport report;
  std::string name_space;
  bool publish_prefix = false;  // its exact KV may enter the prefix index
  // Past answers to draft from; null: none.
  std::shared_ptr<AnswerShelf> past_answers;
  bool keep_answer = false;  // the answer becomes one of them
  std::chrono::steady_clock::time_point begin;
};

class RagPipeline {
 public:
  explicit RagPipeline(Runtime& runtime)
      : runtime_(runtime),
        prefill_(runtime),
        ingest_(runtime),
        assembler_(&runtime.prefix_index()),
        repair_(runtime.engine(), runtime.chat_template().stop_ids()),
        certifier_(runtime.engine(), runtime.chat_template().stop_ids()),
        auditor_(runtime.engine(), runtime.audits(), runtime.chat_template().stop_ids(),
                 runtime.config().audit_share) {}

  // kNotFound: a document, chunk or collection that is not stored; kInvalidArgument: a mode,
  // policy or text that cannot be; kFailedPrecondition: on_missing = error and KV is missing.
  Result<PreparedPrompt> Prepare(const RagRequest& request);

  // max_tokens 0 = 512 or what the context leaves. The sink is called on the engine's thread.
  // draft_run: of a prompt with a draft, for callers who want to hear of it; null = one of its own.
  Result<RequestId> Submit(const PreparedPrompt& prompt, const SamplingParams& sampling,
                           int32_t max_tokens, std::function<void(const TokenEvent&)> sink,
                           bool ignore_eos = false, std::shared_ptr<DraftRun> draft_run = nullptr);

  // Of requests that Prepare saw.
  AuditStats audits() const { return auditor_.stats(); }

 private:
  // One chunk of the prompt to be.
  struct Piece {
    std::vector<int32_t> token_ids;
    Encoding encoding;
    std::vector<int32_t> own_primer;  // empty: that of the encoding, if it has one
    ChunkId chunk = 0;                // 0: not stored
    std::string name_space;
    DocumentReport report;

    ChunkContext Context(const std::vector<int32_t>& anchor) const {
      return encoding.Context(anchor, own_primer);
    }
  };
  struct Draft;

  std::shared_ptr<AnswerShelf> OpenAnswers(const RagRequest& request) const;
  void ConnectAnswers(const PreparedPrompt& prompt, Request* request) const;
  Status CollectPieces(const RagRequest& request, Draft* draft);
  Status AddNamed(const DocumentInput& document, Draft* draft);
  Status CheckAccess(const Encoding& encoding, const std::string& collection,
                     const std::string& salt) const;
  Status AddRetrieved(const RagRequest& request, Draft* draft);
  Status Render(const RagRequest& request, Draft* draft);
  Status LoadKv(const RagRequest& request, Draft* draft);
  // Computes chunks that are not stored, several at a time, and looks them up.
  void ComputeMissing(const RagRequest& request, Draft* draft, const std::vector<size_t>& missing);
  Status RepairRows(const Draft& draft, Assembly* assembly, CacheReport* report);
  AuditScope ScopeOf(const Draft& draft) const;
  std::string ChosenPolicy(const RagRequest& request, const Draft& draft,
                           CacheReport* report) const;
  void Count(const Draft& draft, const Assembly& assembly, CacheReport* report);
  static void SplitDraft(Assembly* assembly, PreparedPrompt* prompt);

  Runtime& runtime_;
  ChunkPrefill prefill_;
  IngestPipeline ingest_;
  Assembler assembler_;
  Repair repair_;
  Certifier certifier_;
  Auditor auditor_;
};

}  // namespace kvasir
