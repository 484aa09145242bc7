#include "engine/drafting.h"

#include <algorithm>
#include <utility>

#include "engine/prompt_lookup.h"

namespace kvasir {
namespace {

constexpr double kModelDecay = 0.99;  // of what the draft model is worth: halves in about 70 drafts

}  // namespace

// Teacher forcing and gathered attention have rows of their own.
bool Drafting::MayDraft(const Sequence& sequence) const {
  const Request& request = sequence.request();
  return draft_tokens_ != 0 && request.speculate && sequence.prefill_done() &&
         sequence.answered() > 0 && sequence.DraftRoom() > 0 && request.forced.empty() &&
         !request.attention;
}

Drafting::Answer& Drafting::AnswerOf(const Sequence& sequence) {
  const auto [at, is_new] = answers_.try_emplace(sequence.id());
  Answer& answer = at->second;
  if (!is_new) return answer;
  const Request& request = sequence.request();
  answer.drafter.Add(std::make_unique<PromptLookup>(request.prompt));
  if (request.drafter) {
    try {
      answer.drafter.Add(request.drafter());
    } catch (...) {  // as if it had been dropped at its first guess
      ++dropped_;
    }
  }
  answer.drafter.Append(sequence.last_token());
  answer.tokens = {sequence.last_token()};
  return answer;
}

// What is no token ends the guess.
Guess Drafting::GuessFor(const Sequence& sequence, Answer* answer) const {
  const int32_t most = std::min(sequence.DraftRoom(), answer->drafter.Most());
  Guess guess = answer->drafter.Draft(most);
  const auto wrong = std::find_if(guess.tokens.begin(), guess.tokens.end(),
                                  [this](int32_t id) { return id < 0 || id >= vocab_; });
  guess.tokens.erase(wrong, guess.tokens.end());
  return guess;
}

// A guess is looked up before its length is asked for: what nobody guesses is not declined.
bool Drafting::TryLookup(Sequence& sequence, int32_t rows_beside) {
  Answer& answer = AnswerOf(sequence);
  Guess guess = GuessFor(sequence, &answer);
  if (guess.tokens.empty()) return false;
  DraftRecord& record = answer.records[size_t(guess.source)];
  if (!guess.whole) {
    const int32_t length =
        draft_tokens_ > 0 ? draft_tokens_ : speculation_.NextLength(&record, rows_beside);
    if (length == 0) return false;
    guess.tokens.resize(std::min(guess.tokens.size(), static_cast<size_t>(length)));
  }
  long_guess_ = long_guess_ || guess.tokens.size() > size_t(kMostDrafts);
  answer.source = guess.source;
  sequence.SetDrafts(std::move(guess.tokens));
  return true;
}

void Drafting::Propose(std::span<const std::unique_ptr<Sequence>> running) {
  auto rows = static_cast<int32_t>(running.size());
  long_guess_ = false;
  std::vector<Sequence*> without;
  for (const auto& sequence : running) {
    if (!MayDraft(*sequence)) continue;
    if (TryLookup(*sequence, rows - 1)) {
      rows += static_cast<int32_t>(sequence->drafts().size());
    } else {
      without.push_back(sequence.get());
    }
  }
  if (model_ != nullptr && !without.empty()) AskModel(without, rows - 1);
}

// ---- the draft model

double Drafting::ModelCost(int32_t rows) const {
  const double own = model_->Seconds(rows), real = speculation_.OneRow();
  return own > 0 && real > 0 ? own / real : model_cost_ * Speculation().Cost(rows);
}

bool Drafting::MayBegin(const Sequence& sequence, int32_t rows_beside, double cost,
                        Answer* answer) {
  DraftRecord& record = answer->records[size_t(DraftSource::kModel)];
  record.right = record.tried * model_record_.share();
  if (draft_tokens_ > 0) return true;
  const int32_t rows = model_->RowsToBegin(sequence.request().prompt, answer->tokens.size());
  const int32_t horizon = std::min(sequence.DraftRoom(), kHorizon);
  if (speculation_.Saved(record, rows_beside, cost, horizon) > ModelCost(rows)) return true;
  if (++answers_declined_ < kProbeAnswers) return false;
  answers_declined_ = 0;
  answer->probes = kProbeGuesses;
  return true;
}

void Drafting::CountIdle(RequestId id, Answer* answer) {
  if (++answer->idle < kGiveUp) return;
  answer->model = ModelUse::kGivenUp;
  model_->End(id);
}

int32_t Drafting::Wanted(const Sequence& sequence, int32_t rows_beside, double cost,
                         Answer* answer) {
  if (answer->model == ModelUse::kUndecided) {
    const bool begins = MayBegin(sequence, rows_beside, cost, answer);
    answer->model = begins ? ModelUse::kReads : ModelUse::kGivenUp;
    if (begins) model_->Begin(sequence.id(), sequence.request().prompt, answer->tokens);
  }
  if (answer->model == ModelUse::kGivenUp) return 0;
  const DraftRecord& record = answer->records[size_t(DraftSource::kModel)];
  int32_t length =
      draft_tokens_ > 0 ? draft_tokens_ : speculation_.Length(record, rows_beside, cost);
  if (length == 0 && answer->probes > 0) length = 1;
  if (length == 0) CountIdle(sequence.id(), answer);
  return std::min({length, sequence.DraftRoom(), kMostDrafts});
}

void Drafting::AskModel(std::span<Sequence* const> sequences, int32_t rows_beside) {
  // One step of the model serves all of them, so each bears its share.
  const auto count = static_cast<int32_t>(sequences.size());
  const double cost = ModelCost(count) / count;
  std::vector<DraftModel::Wish> wishes;
  std::vector<Sequence*> asking;
  for (Sequence* sequence : sequences) {
    const int32_t tokens = Wanted(*sequence, rows_beside, cost, &answers_.at(sequence->id()));
    if (tokens == 0) continue;
    wishes.push_back({sequence->id(), tokens, {}});
    asking.push_back(sequence);
  }
  if (wishes.empty()) return;
  Status drafted;
  try {
    drafted = model_->Draft(wishes);
  } catch (...) {
    drafted = Internal("the draft model failed");
  }
  if (!drafted.ok()) {
    model_.reset();
    ++dropped_;
    return;
  }
  for (size_t i = 0; i < wishes.size(); ++i) {
    Answer& answer = answers_.at(wishes[i].id);
    if (wishes[i].catches_up) continue;
    if (wishes[i].guess.empty()) {
      CountIdle(wishes[i].id, &answer);
      continue;
    }
    answer.idle = 0;
    answer.probes = std::max(0, answer.probes - 1);
    answer.source = DraftSource::kModel;
    asking[i]->SetDrafts(std::move(wishes[i].guess));
  }
}

// ---- what became of it

void Drafting::Answered(RequestId id, int32_t token) {
  const auto at = answers_.find(id);
  if (at == answers_.end()) return;
  at->second.drafter.Append(token);
  if (model_ == nullptr) return;
  at->second.tokens.push_back(token);
  model_->Append(id, token);
}

DraftSource Drafting::Verified(RequestId id, int32_t drafted, int32_t accepted) {
  Answer& answer = answers_.at(id);
  Speculation::RecordDrafts(drafted, accepted, &answer.records[size_t(answer.source)]);
  if (answer.source == DraftSource::kModel) {
    Speculation::RecordDrafts(drafted, accepted, &model_record_, kModelDecay);
  }
  return answer.source;
}

DraftCounts Drafting::End(RequestId id) {
  DraftCounts counts;
  if (model_ != nullptr) model_->End(id);
  const auto at = answers_.find(id);
  if (at == answers_.end()) return counts;
  for (const DraftRecord& record : at->second.records) {
    counts.drafted += record.drafted;
    counts.accepted += record.accepted;
  }
  dropped_ += static_cast<uint64_t>(at->second.drafter.dropped());
  answers_.erase(at);
  return counts;
}

}  // namespace kvasir
