// Engine: runs requests over one model: continuous batching on paged KV.
//
// One thread owns the step loop (schedule, forward, sample); every public method may be called
// from any thread. A request's events arrive on the engine's thread. The engine never reads
// disks: whoever submits has loaded the chunks' KV into blocks beforehand.
// Life cycle: Create starts the thread; the destructor cancels what runs and joins.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/model.h"
#include "engine/request.h"
#include "engine/schedule_order.h"
#include "kernels/core/backend.h"
#include "kernels/core/status.h"

namespace kvasir {

inline constexpr int32_t kDraftWhatPays = -1;

struct EngineOptions {
  // Bytes of the KV pool. One block holds 16 tokens of all layers.
  size_t pool_bytes = size_t{256} << 20;
  // Pool element type: kBF16, kI8 (half of the bytes), or kF32 for exactness gates.
  DType kv_dtype = DType::kBF16;
  // Text by which a pool of kI8 balances its keys (key_balance.h); empty = any tokens.
  std::vector<int32_t> balance_ids = {};
  // Rows a step at most: prefill is cut into slices of this many rows less the decodes beside it.
  int32_t step_rows = 512;
  // Which prompts are admitted and computed first.
  ScheduleOrder order = ScheduleOrder::kArrival;
  // Sequences that run at once; more wait.
  int32_t max_sequences = 64;
  // Requests that wait at most; more are kResourceExhausted.
  int32_t max_waiting = 256;
  // Longest context, prompt and answer; 0 = the model's own. An answer that reaches it ends there
  // (kLength); a longer prompt is refused.
  int32_t max_context = 0;
  // How long requests wait for room in the pool while nothing runs that could make any (all of it
  // is held by KvBlocks outside the engine) before the first of them is failed with
  // kResourceExhausted.
  int32_t stall_ms = 500;
  // Answers are drafted (Request::drafter, and from their prompts) and several tokens verified a
  // step: as many as pay
  // (engine/speculation.h), none, or always so many where there is a guess.
  int32_t draft_tokens = kDraftWhatPays;
  // A smaller model of the same vocabulary, packed for the same backend, that guesses where nothing
  // else does (engine/draft_model.h); null = none. The bytes of its KV pool, and how many of a
  // prompt's last tokens it reads: more make better guesses and cost time at an answer's begin.
  std::shared_ptr<const Model> draft_model;
  size_t draft_pool_bytes = size_t{64} << 20;
  int32_t draft_window = 256;
  // Tokens are drawn on the backend's device where it can, and nothing else wants the logits; false
  // = always on the host. The answers are the same but for the rounding of weights.
  bool draw_on_device = true;
  // Fill blocks with NaN when they are freed and at start, so that a read of stale KV shows.
#ifdef NDEBUG
  bool poison_blocks = false;
#else
  bool poison_blocks = true;
#endif
};

struct EngineStats {
  double prepare_seconds = 0;  // at start: choosing how products are computed
  int32_t running = 0, waiting = 0;
  int32_t blocks_total = 0, blocks_free = 0;
  uint64_t steps = 0, rows = 0, tokens_generated = 0, requests_finished = 0;
  // Of steps of at least kPrefillRows rows and without probes: how fast prompts are computed.
  uint64_t prefill_rows = 0;
  double prefill_seconds = 0;
  uint64_t tokens_drafted = 0, drafts_accepted = 0;
  std::array<DraftCounts, kDraftSources> drafts;  // the same by DraftSource
  uint64_t drafters_dropped = 0;                  // because they failed
  uint64_t preemptions = 0;      // answers that gave up their blocks and were computed again
  double longest_queued_ms = 0;  // from arrival to the first step
  uint64_t loads_lost = 0;       // requests that computed what could not be loaded
};
inline constexpr int32_t kPrefillRows = 16;

class Engine {
 public:
  static Result<std::unique_ptr<Engine>> Create(std::shared_ptr<const Model> model,
                                                std::shared_ptr<Backend> backend,
                                                const EngineOptions& options);
  virtual ~Engine() = default;

  // kInvalidArgument: empty prompt, nothing to compute, longer than the context or the whole pool
  // (both numbers named), bad sampling values; kResourceExhausted: the queue is full; kUnavailable:
  // health().
  virtual Result<RequestId> Submit(Request request) = 0;
  // Takes effect before the next step; the request's sink still gets its finish event.
  virtual void Cancel(RequestId id) = 0;

  // Copies a chunk's KV, one KvLayerPlanes a layer, into fresh pool blocks, on the caller's
  // thread. kResourceExhausted when the pool has no room even after the reclaimer ran, or the
  // device no memory to load with: nothing has changed, and it may work later.
  virtual Result<std::shared_ptr<const KvBlocks>> LoadBlocks(
      std::span<const KvLayerPlanes> layers) = 0;

  // The same layer by layer: the blocks may be used in requests at once, and their steps wait for
  // the layers that they need. A request whose load fails computes those tokens itself. The KvFill
  // must be gone before the engine.
  virtual Result<std::unique_ptr<KvFill>> BeginLoad(int32_t tokens) = 0;

  // One layer of KV that lies in the pool: keys as they lie (rotated to local positions) and
  // values, fp32 [tokens][G][D]. On the caller's thread; waits for blocks that are being loaded,
  // and nobody else may write them meanwhile. kUnavailable: they could not be loaded;
  // kResourceExhausted: the device has no memory to read with.
  virtual Status ReadBlocks(const KvBlocks& blocks, int32_t layer, std::vector<float>* k,
                            std::vector<float>* v) const = 0;

  // Asked (from any thread, no engine lock held) to give up at least `blocks` cached blocks by
  // dropping KvBlocks that nobody uses; returns how many it dropped references to.
  virtual void SetReclaimer(std::function<int32_t(int32_t blocks)> reclaimer) = 0;

  // kUnavailable, for good, once the backend has failed, with what to do: requests in flight have
  // ended with this, Submit, LoadBlocks and KvFill::Load say it, and nothing that the failed step
  // computed was handed out.
  virtual Status health() const = 0;

  virtual const Model& model() const = 0;
  virtual const EngineOptions& options() const = 0;
  virtual int32_t max_context() const = 0;
  virtual EngineStats stats() const = 0;
};

}  // namespace kvasir
