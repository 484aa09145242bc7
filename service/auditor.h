// Auditor: answers a sampled share of live fused requests again in idle time, exactly and on every
// rung of certify's ladder. What it finds calibrates certify (AuditStore) and is shown in
// statistics: how far from full prefill the answers that were sent out really were.
//
// Giving way: a pass begins only while the engine runs nothing and nobody waits, one at a time, and
// is cancelled before the engine's next step as soon as another request arrives; its job begins
// anew later, kAuditTries times at most. The look of the ladder alone (the question's rows) is not
// called off. Jobs hold the blocks of their prompts: they go when requests wait for long, and
// after kAuditAge. So what is audited is what was asked in quieter times: a limit of the samples.
//
// Life cycle: a share above 0 starts the thread; the destructor stops and joins it, at most one
// look later. Thread-safe. Engine and store must outlive it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "kernels/core/prompt_plan.h"
#include "service/audit_store.h"
#include "service/certifier.h"

namespace kvasir {

inline constexpr size_t kMaxAuditJobs = 8;  // that wait
inline constexpr int kAuditTries = 3;
inline constexpr std::chrono::seconds kAuditAge{60};

struct AuditJob {
  PromptPlan stored;  // chunk KV as stored
  PromptPlan served;  // what was answered from
  AuditScope scope;
  uint64_t group = 0;     // CalibrationSample::group
  std::string policy;     // of what was served
  double epsilon = 0.05;  // what "over" means
  std::chrono::steady_clock::time_point offered;
};

struct PolicyAudits {
  int64_t samples = 0, over = 0;  // over: KL > epsilon at the first token
  double sum_kl = 0, max_kl = 0;  // nats
};

// Since the start.
struct AuditStats {
  double share = 0;
  int64_t waiting = 0, dropped = 0, failed = 0;
  PolicyAudits total;
  std::map<std::string, PolicyAudits> policies;  // at most kMaxAuditPolicies, the rest in "other"
};
inline constexpr size_t kMaxAuditPolicies = 32;

class Auditor {
 public:
  // share in [0, 1]: of the requests that are offered.
  Auditor(Engine& engine, AuditStore& store, std::vector<int32_t> stop_ids, double share);
  ~Auditor();
  Auditor(const Auditor&) = delete;
  Auditor& operator=(const Auditor&) = delete;

  bool on() const { return share_ > 0; }
  // Takes the job if it is drawn and there is room.
  void Offer(AuditJob job);
  AuditStats stats() const;

 private:
  enum class Outcome : uint8_t { kDone, kGaveWay, kDropped, kFailed };

  void Loop();
  bool Take(AuditJob* job);
  Outcome Try(const AuditJob& job);
  Status Audit(const AuditJob& job);
  bool WaitForIdle();
  bool MayGoOn() const;
  void Record(const AuditJob& job, double kl);

  Engine& engine_;
  AuditStore& store_;
  Certifier certifier_;
  const double share_;
  std::atomic<bool> stopping_{false};
  bool crowded_ = false;  // of the thread: requests waited while it did

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<AuditJob> jobs_;  // guarded by mutex_, as all below
  std::mt19937_64 random_{std::random_device{}()};
  AuditStats stats_;
  std::thread thread_;
};

}  // namespace kvasir
