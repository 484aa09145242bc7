#include "service/auditor.h"

#include <algorithm>
#include <utility>

#include "cache/selector.h"
#include "service/eval/metrics.h"

namespace kvasir {
namespace {

constexpr std::chrono::milliseconds kPoll{20};
constexpr int kCrowdedPolls = 25;
constexpr char kOtherPolicies[] = "other";

void Count(const AuditJob& job, double kl, PolicyAudits* audits) {
  ++audits->samples;
  audits->over += kl <= job.epsilon ? 0 : 1;
  audits->sum_kl += kl;
  audits->max_kl = std::max(audits->max_kl, kl);
}

}  // namespace

Auditor::Auditor(Engine& engine, AuditStore& store, std::vector<int32_t> stop_ids, double share)
    : engine_(engine), store_(store), certifier_(engine, std::move(stop_ids)), share_(share) {
  stats_.share = share;
  if (on()) thread_ = std::thread([this] { Loop(); });
}

Auditor::~Auditor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Auditor::Offer(AuditJob job) {
  if (!on() || FusedRows(job.stored) == 0) return;
  {
    const std::lock_guard lock(mutex_);
    if (std::uniform_real_distribution<double>()(random_) >= share_) return;
    if (stopping_ || jobs_.size() >= kMaxAuditJobs) {
      ++stats_.dropped;
      return;
    }
    job.offered = std::chrono::steady_clock::now();
    jobs_.push_back(std::move(job));
  }
  wake_.notify_all();
}

AuditStats Auditor::stats() const {
  const std::lock_guard lock(mutex_);
  AuditStats stats = stats_;
  stats.waiting = static_cast<int64_t>(jobs_.size());
  return stats;
}

bool Auditor::Take(AuditJob* job) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
  if (stopping_) return false;
  *job = std::move(jobs_.front());
  jobs_.pop_front();
  return true;
}

void Auditor::Loop() {
  for (AuditJob job; Take(&job); job = {}) {
    Outcome outcome = Outcome::kGaveWay;
    for (int tries = 0; tries < kAuditTries && outcome == Outcome::kGaveWay; ++tries) {
      outcome = Try(job);
    }
    const std::lock_guard lock(mutex_);
    stats_.failed += outcome == Outcome::kFailed ? 1 : 0;
    stats_.dropped += outcome == Outcome::kGaveWay || outcome == Outcome::kDropped ? 1 : 0;
  }
}

Auditor::Outcome Auditor::Try(const AuditJob& job) {
  crowded_ = false;
  if (std::chrono::steady_clock::now() - job.offered > kAuditAge) return Outcome::kDropped;
  const Status status = Audit(job);
  if (status.ok()) return Outcome::kDone;
  if (crowded_ || stopping_) return Outcome::kDropped;
  return status.code() == StatusCode::kCancelled ? Outcome::kGaveWay : Outcome::kFailed;
}

Status Auditor::Audit(const AuditJob& job) {
  const Certifier::Pass pass = [this](Request request) -> Result<FinishedCall> {
    if (!WaitForIdle()) return Cancelled("audits have stopped");
    return RunWhile(engine_, std::move(request), [this] { return MayGoOn(); });
  };
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> exact,
                          Certifier::FirstLogits(FlatPlan(job.stored), pass));
  KVASIR_ASSIGN_OR_RETURN(const std::vector<float> served,
                          Certifier::FirstLogits(job.served, pass));
  if (!WaitForIdle()) return Cancelled("audits have stopped");
  KVASIR_ASSIGN_OR_RETURN(CalibrationSample sample, certifier_.Measure(job.stored, exact, pass));
  sample.group = job.group;
  KVASIR_RETURN_IF_ERROR(store_.Add(job.scope, sample));
  Record(job, KlDivergence(exact, served));
  return Status::Ok();
}

// False: stopping, or waiting requests need the room of all jobs: the engine runs nothing and yet
// does not admit them, or they have waited for long.
bool Auditor::WaitForIdle() {
  std::unique_lock lock(mutex_);
  for (int polls = 0; !stopping_;) {
    const EngineStats engine = engine_.stats();
    polls = engine.waiting > 0 ? polls + 1 : 0;
    if (polls > (engine.running > 0 ? kCrowdedPolls : 1)) {
      crowded_ = true;
      stats_.dropped += static_cast<int64_t>(jobs_.size());
      std::deque<AuditJob> gone;
      gone.swap(jobs_);
      lock.unlock();  // blocks go back outside the lock
      return false;
    }
    if (engine.running + engine.waiting == 0) return true;
    wake_.wait_for(lock, kPoll);
  }
  return false;
}

// The pass itself is one of the engine's sequences.
bool Auditor::MayGoOn() const {
  const EngineStats engine = engine_.stats();
  return !stopping_ && engine.running + engine.waiting <= 1;
}

void Auditor::Record(const AuditJob& job, double kl) {
  const std::lock_guard lock(mutex_);
  Count(job, kl, &stats_.total);
  const bool known = stats_.policies.contains(job.policy);
  const bool room = stats_.policies.size() + 1 < kMaxAuditPolicies;
  Count(job, kl, &stats_.policies[known || room ? job.policy : kOtherPolicies]);
}

}  // namespace kvasir
