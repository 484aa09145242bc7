#include "engine/drafting.h"

#include <algorithm>
#include <utility>

#include "engine/prompt_lookup.h"

namespace kvasir {

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
  return answer;
}

// What is no token ends the guess.
Guess Drafting::GuessFor(const Sequence& sequence, Answer* answer) const {
  const int32_t most = std::min(sequence.DraftRoom(), kMostDrafts);
  Guess guess = answer->drafter.Draft(most);
  const auto wrong = std::find_if(guess.tokens.begin(), guess.tokens.end(),
                                  [this](int32_t id) { return id < 0 || id >= vocab_; });
  guess.tokens.erase(wrong, guess.tokens.end());
  if (guess.tokens.size() > size_t(most)) guess.tokens.resize(size_t(most));
  return guess;
}

void Drafting::Propose(std::span<const std::unique_ptr<Sequence>> running) {
  auto rows = static_cast<int32_t>(running.size());
  for (const auto& sequence : running) {
    if (!MayDraft(*sequence)) continue;
    Answer& answer = AnswerOf(*sequence);
    // A guess is looked up before its length is asked for: what nobody guesses is not declined.
    Guess guess = GuessFor(*sequence, &answer);
    if (guess.tokens.empty()) continue;
    DraftRecord& record = answer.records[size_t(guess.source)];
    const int32_t length =
        draft_tokens_ > 0 ? draft_tokens_ : speculation_.NextLength(&record, rows - 1);
    guess.tokens.resize(std::min(guess.tokens.size(), static_cast<size_t>(length)));
    rows += static_cast<int32_t>(guess.tokens.size());
    answer.source = guess.source;
    sequence->SetDrafts(std::move(guess.tokens));
  }
}

void Drafting::Answered(RequestId id, int32_t token) {
  const auto at = answers_.find(id);
  if (at != answers_.end()) at->second.drafter.Append(token);
}

DraftSource Drafting::Verified(RequestId id, int32_t drafted, int32_t accepted) {
  Answer& answer = answers_.at(id);
  Speculation::RecordDrafts(drafted, accepted, &answer.records[size_t(answer.source)]);
  return answer.source;
}

DraftCounts Drafting::End(RequestId id) {
  DraftCounts counts;
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
