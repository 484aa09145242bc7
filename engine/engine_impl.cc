// What callers' threads run. The loop is in engine_loop.cc, loads in engine_load.cc.
#include "engine/engine_impl.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "engine/request_check.h"

namespace kvasir {
namespace {

std::string N(int64_t value) { return std::to_string(value); }

// A step with few rows takes as long as its weights take to read.
double CostOf(const Model* draft, const Model& model) {
  if (draft == nullptr) return 1;
  return static_cast<double>(draft->WeightBytes()) / static_cast<double>(model.WeightBytes());
}

}  // namespace

EngineImpl::EngineImpl(std::shared_ptr<const Model> model, std::shared_ptr<Backend> backend,
                       std::unique_ptr<KvPool> kv_pool, std::unique_ptr<DraftModel> draft_model,
                       const EngineOptions& options, double prepare_seconds)
    : backend_(std::move(backend)),
      model_(std::move(model)),
      options_(options),
      max_context_(options.max_context > 0 ? options.max_context : model_->config.context),
      kv_pool_(std::move(kv_pool)),
      blocks_(kv_pool_->blocks(), PoisonHook()),
      scheduler_(&blocks_, {options.step_rows, options.max_sequences, options.order},
                 [this](int32_t blocks) { return Reclaim(blocks); }),
      runner_(*model_, *backend_, *kv_pool_, blocks_, options.draw_on_device),
      drafting_(options.draft_tokens, model_->config.vocab, std::move(draft_model),
                CostOf(options.draft_model.get(), *model_)) {
  if (options_.poison_blocks) {
    for (int32_t block = 0; block < blocks_.total(); ++block) Poison(block);
  }
  stats_.blocks_total = blocks_.total();
  stats_.prepare_seconds = prepare_seconds;
  thread_ = std::thread([this] { Loop(); });
}

EngineImpl::~EngineImpl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_all();
  thread_.join();
}

BlockPool::FreedHook EngineImpl::PoisonHook() {
  if (!options_.poison_blocks) return {};
  return [this](int32_t block) { Poison(block); };
}

void EngineImpl::Poison(int32_t block) {
  const KvLayout& layout = kv_pool_->layout();
  const std::vector<float> nan(size_t(kBlockTokens) * size_t(layout.kv_heads * layout.head_dim),
                               std::numeric_limits<float>::quiet_NaN());
  const KvLayerPlanes planes{DType::kF32, kBlockTokens, nan.data(), nullptr, nan.data(), nullptr};
  for (int32_t layer = 0; layer < layout.layers; ++layer) {
    // Without it stale KV shows less, and nothing else changes.
    static_cast<void>(backend_->LoadKv(*kv_pool_, layer, planes, {&block, 1}, nullptr));
  }
}

int32_t EngineImpl::Reclaim(int32_t blocks) {
  std::shared_ptr<const std::function<int32_t(int32_t)>> reclaimer;
  {
    const std::lock_guard lock(reclaimer_mutex_);
    reclaimer = reclaimer_;
  }
  return reclaimer && *reclaimer ? (*reclaimer)(blocks) : 0;
}

void EngineImpl::SetReclaimer(std::function<int32_t(int32_t blocks)> reclaimer) {
  auto shared = std::make_shared<const std::function<int32_t(int32_t)>>(std::move(reclaimer));
  const std::lock_guard lock(reclaimer_mutex_);
  reclaimer_ = std::move(shared);
}

// A step that had no device memory is an error of its requests alone.
Status EngineImpl::health() const {
  const Status status = backend_->status();
  if (status.ok() || status.code() == StatusCode::kResourceExhausted) return Status::Ok();
  std::string message = "the backend ";
  message.append(backend_->name()).append(" has failed (").append(status.message());
  return Unavailable(message.append("); restart Kvasir"));
}

Status EngineImpl::CheckFits(const Sequence& sequence) const {
  if (sequence.BlocksHeld() <= blocks_.total()) return Status::Ok();
  return InvalidArgument("the request needs " + N(sequence.BlocksHeld()) + " blocks of " +
                         N(kBlockTokens) + " tokens (prompt " + N(sequence.prompt_tokens()) +
                         ", answer " + N(sequence.max_tokens()) + " tokens); the pool has " +
                         N(blocks_.total()) + ". Lower max_tokens or give the pool more memory");
}

// Without waiting requests the places that are still free count as room too.
bool EngineImpl::QueueIsFull() const {
  if (stats_.waiting > 0) {
    return stats_.waiting + int64_t(inbox_.size()) >= options_.max_waiting;
  }
  return in_system_ >= int64_t{options_.max_sequences} + options_.max_waiting;
}

Result<RequestId> EngineImpl::Submit(Request request) {
  KVASIR_RETURN_IF_ERROR(health());
  KVASIR_RETURN_IF_ERROR(CheckRequest(request, {model_->config.vocab, max_context_}, blocks_));
  auto sequence = std::make_unique<Sequence>(0, std::move(request), max_context_);
  KVASIR_RETURN_IF_ERROR(CheckFits(*sequence));
  RequestId id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return Unavailable("the engine is shutting down");
    if (QueueIsFull()) {
      return ResourceExhausted("the queue is full: " + N(stats_.waiting + int64_t(inbox_.size())) +
                               " requests wait and " + N(stats_.running) + " run; try again later");
    }
    id = next_id_++;
    sequence->set_id(id);
    inbox_.push_back({std::move(sequence), Clock::now()});
    ++in_system_;
  }
  work_.notify_one();
  return id;
}

void EngineImpl::Cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    cancels_.push_back(id);
  }
  work_.notify_one();
}

EngineStats EngineImpl::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting += static_cast<int32_t>(inbox_.size());
  stats.blocks_free = blocks_.free();
  return stats;
}

}  // namespace kvasir
