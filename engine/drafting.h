// Drafting: what the engine's loop asks and tells about drafts: guesses for the running sequences,
// as many as pay, and what became of them.
//
// Owns a drafter and its records for every answer that is drafted. The engine's thread alone.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>

#include "engine/combined_drafter.h"
#include "engine/sequence.h"
#include "engine/speculation.h"

namespace kvasir {

class Drafting {
 public:
  // draft_tokens: EngineOptions::draft_tokens; ids at and above `vocab` are no tokens.
  Drafting(int32_t draft_tokens, int32_t vocab) : draft_tokens_(draft_tokens), vocab_(vocab) {}

  // Sets the drafts of the sequences that answer.
  void Propose(std::span<const std::unique_ptr<Sequence>> running);
  // The answer went on by this token.
  void Answered(RequestId id, int32_t token);
  // `accepted` of `drafted` were right. Where they came from.
  DraftSource Verified(RequestId id, int32_t drafted, int32_t accepted);
  // A step that only decoded took so long.
  void RecordStep(int32_t rows, double seconds) { speculation_.RecordStep(rows, seconds); }
  // Forgets the answer.
  DraftCounts End(RequestId id);

  // Drafters that were dropped because they failed, of answers that have ended.
  uint64_t dropped() const { return dropped_; }

 private:
  struct Answer {
    CombinedDrafter drafter;
    std::array<DraftRecord, kDraftSources> records;  // by source
    DraftSource source = DraftSource::kPrompt;       // of the drafts under way
  };
  bool MayDraft(const Sequence& sequence) const;
  Answer& AnswerOf(const Sequence& sequence);
  Guess GuessFor(const Sequence& sequence, Answer* answer) const;

  const int32_t draft_tokens_, vocab_;
  Speculation speculation_;
  std::unordered_map<RequestId, Answer> answers_;
  uint64_t dropped_ = 0;
};

}  // namespace kvasir
