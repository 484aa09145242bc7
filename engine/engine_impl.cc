// What callers' threads run. The loop is in engine_loop.cc.
#include "engine/engine_impl.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "engine/request_check.h"

namespace kvasir {
namespace {

std::string N(int64_t value) { return std::to_string(value); }

bool HasScales(const KvLayerPlanes& plane) {
  const auto whole = [](const KvGrid& grid) { return grid.step && grid.low; };
  if (plane.dtype == DType::kI8) return plane.k_scale && plane.v_scale;
  return plane.dtype != DType::kI4 || (whole(plane.k_grid) && whole(plane.v_grid));
}

Status CheckPlane(const KvLayerPlanes& plane, size_t layer, int32_t tokens) {
  const std::string where = "KV of layer " + N(int64_t(layer));
  if (plane.dtype != DType::kF32 && plane.dtype != DType::kF16 && plane.dtype != DType::kI8 &&
      plane.dtype != DType::kI4) {
    return InvalidArgument(where + " is of type " + std::string(TraitsOf(plane.dtype).name) +
                           "; f32, f16, i8 and i4 can be loaded");
  }
  if (plane.tokens != tokens) {
    return InvalidArgument(where + " holds " + N(plane.tokens) + " tokens, layer 0 holds " +
                           N(tokens));
  }
  if (plane.k == nullptr || plane.v == nullptr || !HasScales(plane)) {
    return InvalidArgument(where + " has no keys, values or scales");
  }
  return Status::Ok();
}

Status CheckPlanes(std::span<const KvLayerPlanes> layers, int32_t model_layers) {
  if (layers.size() != size_t(model_layers)) {
    return InvalidArgument("KV of " + N(int64_t(layers.size())) + " layers for a model of " +
                           N(model_layers));
  }
  const int32_t tokens = layers.front().tokens;
  if (tokens < 1) return InvalidArgument("KV of " + N(tokens) + " tokens; at least 1 is needed");
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    KVASIR_RETURN_IF_ERROR(CheckPlane(layers[layer], layer, tokens));
  }
  return Status::Ok();
}

}  // namespace

EngineImpl::EngineImpl(std::shared_ptr<const Model> model, std::shared_ptr<Backend> backend,
                       std::unique_ptr<KvPool> kv_pool, const EngineOptions& options)
    : backend_(std::move(backend)),
      model_(std::move(model)),
      options_(options),
      max_context_(options.max_context > 0 ? options.max_context : model_->config.context),
      kv_pool_(std::move(kv_pool)),
      blocks_(kv_pool_->blocks(), PoisonHook()),
      scheduler_(&blocks_, {options.step_rows, options.max_sequences},
                 [this](int32_t blocks) { return Reclaim(blocks); }),
      runner_(*model_, *backend_, *kv_pool_, blocks_) {
  if (options_.poison_blocks) {
    for (int32_t block = 0; block < blocks_.total(); ++block) Poison(block);
  }
  stats_.blocks_total = blocks_.total();
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
    backend_->LoadKv(*kv_pool_, layer, planes, {&block, 1}, nullptr);
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

Result<std::shared_ptr<const KvBlocks>> EngineImpl::LoadBlocks(
    std::span<const KvLayerPlanes> layers) {
  const ModelConfig& config = model_->config;
  KVASIR_RETURN_IF_ERROR(CheckPlanes(layers, config.layers));
  const int32_t tokens = layers.front().tokens;
  const int32_t count = BlocksFor(tokens);
  auto ids = blocks_.Allocate(count);
  if (!ids) {
    Reclaim(std::max(1, count - blocks_.free()));
    ids = blocks_.Allocate(count);
  }
  if (!ids) {
    return ResourceExhausted("KV of " + N(tokens) + " tokens needs " + N(count) + " blocks; " +
                             N(blocks_.free()) + " of the pool's " + N(blocks_.total()) +
                             " are free");
  }
  auto handle = blocks_.Own(std::move(*ids), tokens);
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const RopeTable& rope = config.ropes[size_t(config.layer_rope[layer])];
    backend_->LoadKv(*kv_pool_, int32_t(layer), layers[layer], handle->ids(), &rope);
  }
  return handle;
}

void EngineImpl::ReadBlocks(const KvBlocks& blocks, int32_t layer, std::vector<float>* k,
                            std::vector<float>* v) const {
  const KvLayout& layout = kv_pool_->layout();
  const size_t values = size_t(blocks.tokens()) * size_t(layout.kv_heads * layout.head_dim);
  k->resize(values);
  v->resize(values);
  backend_->ReadKv(*kv_pool_, layer, blocks.ids(), blocks.tokens(), k->data(), v->data());
}

EngineStats EngineImpl::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting += static_cast<int32_t>(inbox_.size());
  stats.blocks_free = blocks_.free();
  return stats;
}

}  // namespace kvasir
