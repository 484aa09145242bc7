// Drafting: what the engine's loop asks and tells about drafts: guesses for the running sequences,
// as many as pay, and what became of them.
//
// Owns a drafter and its records for every answer that is drafted, and the draft model, if there is
// one: it is asked for answers that nobody else has a worthwhile guess for, if what it saves pays
// for its steps and for reading the prompt. What it is good for is learnt over all answers; where
// it does not pay, every kProbeAnswers-th answer tries it for kProbeGuesses guesses all the same.
// If it fails it is dropped for good. The engine's thread alone.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/combined_drafter.h"
#include "engine/draft_model.h"
#include "engine/sequence.h"
#include "engine/speculation.h"

namespace kvasir {

class Drafting {
 public:
  static constexpr int32_t kProbeAnswers = 16, kProbeGuesses = 8;
  static constexpr int32_t kGiveUp = 32;    // guesses of the model in a row that did not come to be
  static constexpr int32_t kHorizon = 128;  // tokens that an answer is thought to go on for

  // draft_tokens: EngineOptions::draft_tokens; ids at and above `vocab` are no tokens. `model` may
  // be null; before it was measured its step takes `model_cost` of the real model's.
  Drafting(int32_t draft_tokens, int32_t vocab, std::unique_ptr<DraftModel> model = nullptr,
           double model_cost = 1)
      : draft_tokens_(draft_tokens),
        vocab_(vocab),
        model_(std::move(model)),
        model_cost_(model_cost) {}

  // Sets the drafts of the sequences that answer.
  void Propose(std::span<const std::unique_ptr<Sequence>> running);
  // The answer went on by this token.
  void Answered(RequestId id, int32_t token);
  // `accepted` of `drafted` were right. Where they came from.
  DraftSource Verified(RequestId id, int32_t drafted, int32_t accepted);
  // A step that only decoded took so long. One that verified a long guess says little of the usual
  // ones.
  void RecordStep(int32_t rows, double seconds) {
    if (!long_guess_) speculation_.RecordStep(rows, seconds);
  }
  // Forgets the answer.
  DraftCounts End(RequestId id);

  // Drafters that were dropped because they failed, of answers that have ended, and the model.
  uint64_t dropped() const { return dropped_; }

 private:
  enum class ModelUse : uint8_t { kUndecided, kReads, kGivenUp };
  struct Answer {
    CombinedDrafter drafter;
    std::vector<int32_t> tokens;  // so far, for the model
    ModelUse model = ModelUse::kUndecided;
    int32_t probes = 0;  // guesses to take from the model although they do not pay
    int32_t idle = 0;    // guesses in a row that the model was not asked for or did not give
    std::array<DraftRecord, kDraftSources> records;  // by source
    DraftSource source = DraftSource::kPrompt;       // of the drafts under way
  };
  bool MayDraft(const Sequence& sequence) const;
  Answer& AnswerOf(const Sequence& sequence);
  Guess GuessFor(const Sequence& sequence, Answer* answer) const;
  bool TryLookup(Sequence& sequence, int32_t rows_beside);
  void AskModel(std::span<Sequence* const> sequences, int32_t rows_beside);
  // How many tokens to ask of the model.
  int32_t Wanted(const Sequence& sequence, int32_t rows_beside, double cost, Answer* answer);
  bool MayBegin(const Sequence& sequence, int32_t rows_beside, double cost, Answer* answer);
  void CountIdle(RequestId id, Answer* answer);
  // Of a step of the model, relative to one of the real model with one row.
  double ModelCost(int32_t rows) const;

  const int32_t draft_tokens_, vocab_;
  Speculation speculation_;
  std::unique_ptr<DraftModel> model_;
  const double model_cost_;
  DraftRecord model_record_;      // over all answers
  int32_t answers_declined_ = 0;  // in a row, by MayBegin
  bool long_guess_ = false;       // in the step under way
  std::unordered_map<RequestId, Answer> answers_;
  uint64_t dropped_ = 0;
};

}  // namespace kvasir
