// KV of chunks into pool blocks and back, on callers' threads.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/engine_impl.h"
#include "engine/load_wait.h"

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

// Writes into the pool beside running steps: nobody reads a layer before it is published.
class EngineImpl::Fill final : public KvFill {
 public:
  Fill(const EngineImpl& engine, std::shared_ptr<const KvBlocks> blocks,
       std::shared_ptr<KvReadiness> readiness)
      : engine_(engine), blocks_(std::move(blocks)), readiness_(std::move(readiness)) {}
  ~Fill() override { readiness_->Fail(); }

  const std::shared_ptr<const KvBlocks>& blocks() const override { return blocks_; }

  Status Load(const KvLayerPlanes& planes) override {
    const int32_t layers = engine_.model_->config.layers;
    if (loaded_ == layers)
      return InvalidArgument("KV of more layers than the model's " + N(layers));
    KVASIR_RETURN_IF_ERROR(CheckPlane(planes, size_t(loaded_), blocks_->tokens()));
    KVASIR_RETURN_IF_ERROR(engine_.LoadLayer(loaded_, planes, *blocks_));
    readiness_->Publish(++loaded_);
    return Status::Ok();
  }

 private:
  const EngineImpl& engine_;
  const std::shared_ptr<const KvBlocks> blocks_;
  const std::shared_ptr<KvReadiness> readiness_;
  int32_t loaded_ = 0;
};

Result<std::vector<int32_t>> EngineImpl::AllocateBlocks(int32_t tokens) {
  if (tokens < 1) return InvalidArgument("KV of " + N(tokens) + " tokens; at least 1 is needed");
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
  return *std::move(ids);
}

// What a call of the backend said: that it has failed altogether, or the call alone.
Status EngineImpl::WithHealth(Status status) const {
  if (!status.ok()) KVASIR_RETURN_IF_ERROR(health());
  return status;
}

Status EngineImpl::LoadLayer(int32_t layer, const KvLayerPlanes& planes,
                             const KvBlocks& blocks) const {
  const ModelConfig& config = model_->config;
  const RopeTable& rope = config.ropes[size_t(config.layer_rope[size_t(layer)])];
  return WithHealth(backend_->LoadKv(*kv_pool_, layer, planes, blocks.ids(), &rope));
}

Result<std::shared_ptr<const KvBlocks>> EngineImpl::LoadBlocks(
    std::span<const KvLayerPlanes> layers) {
  KVASIR_RETURN_IF_ERROR(CheckPlanes(layers, model_->config.layers));
  const int32_t tokens = layers.front().tokens;
  KVASIR_ASSIGN_OR_RETURN(std::vector<int32_t> ids, AllocateBlocks(tokens));
  auto handle = blocks_.Own(std::move(ids), tokens);
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    KVASIR_RETURN_IF_ERROR(LoadLayer(int32_t(layer), layers[layer], *handle));
  }
  return handle;
}

Result<std::unique_ptr<KvFill>> EngineImpl::BeginLoad(int32_t tokens) {
  KVASIR_ASSIGN_OR_RETURN(std::vector<int32_t> ids, AllocateBlocks(tokens));
  auto readiness = std::make_shared<KvReadiness>(model_->config.layers);
  auto handle = blocks_.Own(std::move(ids), tokens, readiness);
  return std::unique_ptr<KvFill>(
      std::make_unique<Fill>(*this, std::move(handle), std::move(readiness)));
}

Status EngineImpl::ReadBlocks(const KvBlocks& blocks, int32_t layer, std::vector<float>* k,
                              std::vector<float>* v) const {
  KVASIR_RETURN_IF_ERROR(AwaitBlocks(blocks, layer));
  const KvLayout& layout = kv_pool_->layout();
  const size_t values = size_t(blocks.tokens()) * size_t(layout.kv_heads * layout.head_dim);
  k->resize(values);
  v->resize(values);
  return WithHealth(
      backend_->ReadKv(*kv_pool_, layer, blocks.ids(), blocks.tokens(), k->data(), v->data()));
}

}  // namespace kvasir
