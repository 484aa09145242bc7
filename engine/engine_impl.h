// EngineImpl: the Engine behind its interface. Private to engine/.
//
// Two threads' worth of state: what callers share with the loop lies behind mutex_; the scheduler,
// the runner and the sampler belong to the loop's thread alone. No lock is held while the backend
// computes, the reclaimer runs or a request's callbacks are called.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/block_pool.h"
#include "engine/drafting.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/step_runner.h"

namespace kvasir {

class EngineImpl final : public Engine {
 public:
  EngineImpl(std::shared_ptr<const Model> model, std::shared_ptr<Backend> backend,
             std::unique_ptr<KvPool> kv_pool, std::unique_ptr<DraftModel> draft_model,
             const EngineOptions& options, double prepare_seconds);
  ~EngineImpl() override;

  Result<RequestId> Submit(Request request) override;
  void Cancel(RequestId id) override;
  Result<std::shared_ptr<const KvBlocks>> LoadBlocks(
      std::span<const KvLayerPlanes> layers) override;
  Result<std::unique_ptr<KvFill>> BeginLoad(int32_t tokens) override;
  Status ReadBlocks(const KvBlocks& blocks, int32_t layer, std::vector<float>* k,
                    std::vector<float>* v) const override;
  void SetReclaimer(std::function<int32_t(int32_t blocks)> reclaimer) override;

  Status health() const override;

  const Model& model() const override { return *model_; }
  const EngineOptions& options() const override { return options_; }
  int32_t max_context() const override { return max_context_; }
  EngineStats stats() const override;

 private:
  using Clock = std::chrono::steady_clock;
  class Fill;

  struct Progress {
    Clock::time_point submitted;
    Clock::time_point first_step{};  // epoch = not yet
    Clock::time_point first_token{};
    Clock::time_point last_token{};
    LostRows lost;
  };
  struct Arrival {
    std::unique_ptr<Sequence> sequence;
    Clock::time_point submitted;
  };

  // ---- any thread
  BlockPool::FreedHook PoisonHook();
  void Poison(int32_t block);
  int32_t Reclaim(int32_t blocks);
  bool QueueIsFull() const;  // mutex_ held
  Status CheckFits(const Sequence& sequence) const;
  Result<std::vector<int32_t>> AllocateBlocks(int32_t tokens);
  Status WithHealth(Status status) const;
  Status LoadLayer(int32_t layer, const KvLayerPlanes& planes, const KvBlocks& blocks) const;

  // ---- the loop's thread
  void Loop();
  bool Collect();  // waits for work; false = stop
  void Enqueue(std::vector<Arrival>* arrivals);
  void CancelRequests(const std::vector<RequestId>& ids);
  void Step();
  void WaitForRoom();
  void WaitForLoads();
  bool Recompute(Sequence& sequence);
  void Handle(Sequence& sequence, const Status& status, const StepOutput& output);
  Status HandleRows(Sequence& sequence, const StepOutput& output, FinishReason* finish);
  Status Continue(Sequence& sequence, const StepOutput& output, FinishReason* finish);
  void MarkToken(const Sequence& sequence);
  Status TakeDrawn(Sequence& sequence, int32_t token, FinishReason* finish);
  Status DrawRow(Sequence& sequence, std::span<const float> logits, FinishReason* finish);
  void Answer(Sequence& sequence, Sample sample, FinishReason* finish);
  void OfferPrefix(Sequence& sequence);
  void OfferSegments(Sequence& sequence);
  void Finish(RequestId id, FinishReason reason, Status status);
  RequestTiming TimingOf(const Progress& progress) const;
  void PublishCounts();
  void CancelAll();

  const std::shared_ptr<Backend> backend_;  // first in, last out: model and pools need it
  const std::shared_ptr<const Model> model_;
  const EngineOptions options_;
  const int32_t max_context_;
  const std::unique_ptr<KvPool> kv_pool_;
  BlockPool blocks_;

  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::vector<Arrival> inbox_;      // guarded by mutex_
  std::vector<RequestId> cancels_;  // guarded by mutex_
  bool stopping_ = false;           // guarded by mutex_
  EngineStats stats_;               // guarded by mutex_
  RequestId next_id_ = 1;           // guarded by mutex_
  int64_t in_system_ = 0;           // guarded by mutex_: submitted, not finished

  std::mutex reclaimer_mutex_;
  std::shared_ptr<const std::function<int32_t(int32_t)>> reclaimer_;  // guarded by the above

  Scheduler scheduler_;
  StepRunner runner_;
  Sampler sampler_;
  Drafting drafting_;
  std::unordered_map<RequestId, Progress> progress_;
  std::vector<float> logits_copy_;
  Clock::time_point stalled_since_{};

  std::thread thread_;  // last: starts when all else stands
};

}  // namespace kvasir
