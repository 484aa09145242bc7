#include "engine/scheduler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/load_wait.h"
#include "kernels/core/status.h"

namespace kvasir {
namespace {

template <typename Container>
std::unique_ptr<Sequence> Take(Container& from, RequestId id) {
  const auto found = std::find_if(from.begin(), from.end(),
                                  [id](const auto& sequence) { return sequence->id() == id; });
  if (found == from.end()) return nullptr;
  std::unique_ptr<Sequence> taken = std::move(*found);
  from.erase(found);
  return taken;
}

}  // namespace

bool StepPlan::has_probe() const {
  return std::any_of(sequences.begin(), sequences.end(),
                     [](const Sequence* sequence) { return sequence->request().layers > 0; });
}

Scheduler::Scheduler(BlockPool* pool, const SchedulerOptions& options, Reclaimer reclaimer)
    : pool_(pool), options_(options), reclaimer_(std::move(reclaimer)) {
  KVASIR_CHECK(options_.step_rows >= 1 && options_.max_sequences >= 1);
  // Otherwise decodes alone could fill a step for ever and no prompt would move.
  options_.max_sequences = std::min(options_.max_sequences, options_.step_rows);
}

Scheduler::~Scheduler() {
  for (const auto& sequence : running_) pool_->Unref(sequence->own_blocks());
}

void Scheduler::Enqueue(std::unique_ptr<Sequence> sequence) {
  sequence->set_queued_at(rows_done_);
  waiting_.push_back(std::move(sequence));
}

double Scheduler::RankOf(const Sequence& sequence) const {
  const double age = kAgeing * static_cast<double>(rows_done_ - sequence.queued_at());
  if (options_.order == ScheduleOrder::kShortest) return sequence.rows_left() - age;
  return -double{1} * sequence.reused_tokens() - age;
}

// Equals stay in the order of arrival.
template <typename Prompts>
void Scheduler::SortByRank(Prompts* prompts) const {
  if (options_.order == ScheduleOrder::kArrival || prompts->size() < 2) return;
  std::stable_sort(prompts->begin(), prompts->end(),
                   [this](const auto& a, const auto& b) { return RankOf(*a) < RankOf(*b); });
}

std::optional<std::vector<int32_t>> Scheduler::Allocate(int32_t blocks) {
  auto ids = pool_->Allocate(blocks);
  if (!ids && reclaimer_) {
    reclaimer_(std::max(1, blocks - pool_->free()));
    ids = pool_->Allocate(blocks);
  }
  return ids;
}

bool Scheduler::PreemptLast() {
  const auto last = std::find_if(running_.rbegin(), running_.rend(),
                                 [](const auto& sequence) { return sequence->preemptible(); });
  if (last == running_.rend()) return false;
  pool_->Unref((*last)->Preempt());
  waiting_.push_front(std::move(*last));
  running_.erase(std::next(last).base());
  ++preemptions_;
  return true;
}

// False: it was preempted itself.
bool Scheduler::GrowAnswer(Sequence* sequence) {
  const RequestId id = sequence->id();
  for (;;) {
    const int32_t rows = 1 + static_cast<int32_t>(sequence->drafts().size());
    const int32_t missing = sequence->BlocksMissing(rows);
    if (missing == 0) return true;
    auto ids = Allocate(missing);
    if (ids) {
      sequence->Grow(*ids);
      return true;
    }
    if (rows > 1) {
      sequence->ClearDrafts();
    } else {
      KVASIR_CHECK(PreemptLast());  // this one is preemptible
      if (waiting_.front()->id() == id) return false;
    }
  }
}

// In order of admission: those that came first keep what they have.
void Scheduler::GrowAnswers() {
  for (size_t i = 0; i < running_.size();) {
    Sequence* const sequence = running_[i].get();
    if (!sequence->prefill_done() || GrowAnswer(sequence)) ++i;
  }
}

bool Scheduler::TryAdmit(size_t index, StepPlan* plan) {
  auto ids = Allocate(waiting_[index]->BlocksNeeded());
  if (!ids) return false;
  std::unique_ptr<Sequence> sequence = std::move(waiting_[index]);
  waiting_.erase(waiting_.begin() + std::ptrdiff_t(index));
  sequence->Place(std::move(*ids), &plan->copies);
  running_.push_back(std::move(sequence));
  return true;
}

void Scheduler::Admit(StepPlan* plan) {
  SortByRank(&waiting_);
  size_t index = 0;
  bool too_large = false, loading = false;
  while (index < waiting_.size() && running_.size() < size_t(options_.max_sequences)) {
    const PromptPlan& prompt = waiting_[index]->request().prompt;
    if (!MayBegin(prompt, running_.empty())) {
      loading = true;
      ++index;
      continue;
    }
    const bool complete = IsComplete(prompt);
    const bool admitted = TryAdmit(index, plan);
    plan->awaiting = admitted && !complete;
    // The first waits its turn; only if nothing runs, whose end would make room, one passes it.
    if (plan->awaiting || (admitted ? too_large : !running_.empty())) break;
    if (admitted) continue;
    too_large = true;
    ++index;
  }
  plan->loading = running_.empty() && loading;
  plan->stalled = running_.empty() && !waiting_.empty() && !loading;
}

void Scheduler::AddDecodes(StepPlan* plan) {
  auto decodes = static_cast<int32_t>(
      std::count_if(running_.begin(), running_.end(),
                    [](const auto& sequence) { return sequence->prefill_done(); }));
  for (const auto& sequence : running_) {
    if (!sequence->prefill_done()) continue;
    // Every other answer's row has its place before drafts have theirs.
    const auto drafts = static_cast<int32_t>(sequence->drafts().size());
    const int32_t room = options_.step_rows - plan->batch.rows() - decodes--;
    if (drafts > room) sequence->ClearDrafts();
    sequence->AppendRows(drafts > room ? 1 : 1 + drafts, &plan->batch);
    plan->sequences.push_back(sequence.get());
  }
}

int32_t Scheduler::BoundRows() const {
  int32_t least = options_.step_rows;
  for (const auto& sequence : running_) {
    const int32_t rows = sequence->request().rows_beside;
    if (rows > 0) least = std::min(least, rows);
  }
  return least;
}

void Scheduler::AddPrefills(StepPlan* plan) {
  std::vector<Sequence*> prompts;
  for (const auto& sequence : running_) {
    if (!sequence->prefill_done()) prompts.push_back(sequence.get());
  }
  SortByRank(&prompts);
  int32_t bound = BoundRows();
  for (Sequence* sequence : prompts) {
    const bool binds = sequence->request().rows_beside > 0;
    const int32_t room = options_.step_rows - plan->batch.rows();
    const int32_t rows = std::min({room, sequence->rows_left(), binds ? room : bound});
    if (rows <= 0) continue;
    if (!binds) bound -= rows;
    sequence->AppendRows(rows, &plan->batch);
    plan->sequences.push_back(sequence);
  }
}

StepPlan Scheduler::Schedule() {
  StepPlan plan;
  GrowAnswers();
  Admit(&plan);
  AddDecodes(&plan);
  AddPrefills(&plan);
  rows_done_ += plan.batch.rows();
  return plan;
}

void Scheduler::Complete(const StepPlan& plan) {
  for (Sequence* sequence : plan.sequences) sequence->Advance();
}

std::unique_ptr<Sequence> Scheduler::Remove(RequestId id) {
  std::unique_ptr<Sequence> sequence = Take(waiting_, id);
  if (sequence) return sequence;
  sequence = Take(running_, id);
  if (sequence) pool_->Unref(sequence->own_blocks());
  return sequence;
}

}  // namespace kvasir
