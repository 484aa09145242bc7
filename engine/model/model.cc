#include "engine/model/model.h"

#include <set>
#include <utility>

#include "engine/model/digest.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config_gguf.h"

namespace kvasir {
namespace {

// Changed whenever Forward or the reading of files changes what KV a file's weights give.
constexpr uint64_t kModelVersion = 1;

size_t BytesOfWeight(const std::unique_ptr<PackedWeight>& weight) {
  return weight ? weight->bytes() : 0;
}
size_t BytesOfBuffer(const std::unique_ptr<Buffer>& buffer) { return buffer ? buffer->bytes() : 0; }

size_t BytesOfLayer(const LayerWeights& layer) {
  size_t bytes = 0;
  for (const auto* weight :
       {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
    bytes += BytesOfWeight(*weight);
  }
  for (const auto* buffer :
       {&layer.attn_norm, &layer.ffn_norm, &layer.post_attn_norm, &layer.post_ffn_norm,
        &layer.q_norm, &layer.k_norm, &layer.q_bias, &layer.k_bias, &layer.v_bias}) {
    bytes += BytesOfBuffer(*buffer);
  }
  return bytes;
}

std::string ShapeText(const std::vector<int64_t>& dims) {
  std::string text;
  for (const int64_t dim : dims) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

// Takes tensors out of a file by name and shape and packs them; remembers which were taken.
class WeightLoader {
 public:
  WeightLoader(const GgufFile& file, Backend& backend) : file_(file), backend_(backend) {}

  bool Has(const std::string& name) const { return file_.FindTensor(name) != nullptr; }
  void MarkUsed(const std::string& name) { used_.insert(name); }

  Status Matrix(const std::string& name, int64_t n, int64_t k, std::unique_ptr<PackedWeight>* out) {
    KVASIR_ASSIGN_OR_RETURN(const GgufTensor* tensor, Take(name));
    if (!tensor->IsMatrix(n, k)) return WrongShape(*tensor, {k, n});
    KVASIR_ASSIGN_OR_RETURN(*out, backend_.Pack(tensor->dtype, tensor->data.data(), n, k));
    return Status::Ok();
  }

  Status Vector(const std::string& name, int64_t n, std::unique_ptr<Buffer>* out) {
    KVASIR_ASSIGN_OR_RETURN(const GgufTensor* tensor, Take(name));
    if (!tensor->IsVector(n)) return WrongShape(*tensor, {n});
    std::vector<float> values(static_cast<size_t>(n));
    DequantizeRow(tensor->dtype, tensor->data.data(), values.size(), values.data());
    KVASIR_ASSIGN_OR_RETURN(*out, backend_.Allocate(values.size() * sizeof(float)));
    backend_.Upload(values.data(), (*out)->data(), values.size() * sizeof(float));
    return Status::Ok();
  }

  Status OptionalVector(const std::string& name, int64_t n, std::unique_ptr<Buffer>* out) {
    return Has(name) ? Vector(name, n, out) : Status::Ok();
  }

  // A tensor that nobody took would silently be left out of the result.
  Status CheckAllUsed() const {
    for (const auto& [name, tensor] : file_.tensors()) {
      if (!used_.contains(name)) {
        return Unimplemented(file_.path() + ": tensor \"" + name +
                             "\" is no part of this architecture as it is supported");
      }
    }
    return Status::Ok();
  }

 private:
  Result<const GgufTensor*> Take(const std::string& name) {
    const GgufTensor* tensor = file_.FindTensor(name);
    if (tensor == nullptr) {
      return InvalidArgument(file_.path() + ": tensor \"" + name + "\" is missing");
    }
    used_.insert(name);
    return tensor;
  }

  Status WrongShape(const GgufTensor& tensor, const std::vector<int64_t>& wanted) const {
    return InvalidArgument(file_.path() + ": tensor \"" + tensor.name + "\" has shape " +
                           ShapeText(tensor.dims) + ", expected " + ShapeText(wanted));
  }

  const GgufFile& file_;
  Backend& backend_;
  std::set<std::string> used_;
};

Status LoadAttention(WeightLoader& loader, const ModelConfig& config, const std::string& prefix,
                     LayerWeights* layer) {
  const int64_t e = config.width;
  const int64_t q = int64_t{config.heads} * config.head_dim;
  const int64_t kv = int64_t{config.kv_heads} * config.head_dim;
  KVASIR_RETURN_IF_ERROR(loader.Vector(prefix + "attn_norm.weight", e, &layer->attn_norm));
  KVASIR_RETURN_IF_ERROR(loader.Matrix(prefix + "attn_q.weight", q, e, &layer->q));
  KVASIR_RETURN_IF_ERROR(loader.Matrix(prefix + "attn_k.weight", kv, e, &layer->k));
  KVASIR_RETURN_IF_ERROR(loader.Matrix(prefix + "attn_v.weight", kv, e, &layer->v));
  KVASIR_RETURN_IF_ERROR(loader.Matrix(prefix + "attn_output.weight", e, q, &layer->o));
  KVASIR_RETURN_IF_ERROR(loader.OptionalVector(prefix + "attn_q.bias", q, &layer->q_bias));
  KVASIR_RETURN_IF_ERROR(loader.OptionalVector(prefix + "attn_k.bias", kv, &layer->k_bias));
  KVASIR_RETURN_IF_ERROR(loader.OptionalVector(prefix + "attn_v.bias", kv, &layer->v_bias));
  if (!config.qk_norm) return Status::Ok();
  const int64_t d = config.head_dim;
  KVASIR_RETURN_IF_ERROR(loader.Vector(prefix + "attn_q_norm.weight", d, &layer->q_norm));
  return loader.Vector(prefix + "attn_k_norm.weight", d, &layer->k_norm);
}

Status LoadFeedForward(WeightLoader& loader, const ModelConfig& config, const std::string& prefix,
                       LayerWeights* layer) {
  const int64_t e = config.width;
  const int64_t f = config.ffn_width;
  KVASIR_RETURN_IF_ERROR(loader.Vector(prefix + "ffn_norm.weight", e, &layer->ffn_norm));
  KVASIR_RETURN_IF_ERROR(loader.Matrix(prefix + "ffn_gate.weight", f, e, &layer->gate));
  KVASIR_RETURN_IF_ERROR(loader.Matrix(prefix + "ffn_up.weight", f, e, &layer->up));
  return loader.Matrix(prefix + "ffn_down.weight", e, f, &layer->down);
}

Status LoadLayer(WeightLoader& loader, const ModelConfig& config, int32_t index,
                 LayerWeights* layer) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  KVASIR_RETURN_IF_ERROR(LoadAttention(loader, config, prefix, layer));
  KVASIR_RETURN_IF_ERROR(LoadFeedForward(loader, config, prefix, layer));
  if (!config.post_norms) return Status::Ok();
  const int64_t e = config.width;
  KVASIR_RETURN_IF_ERROR(
      loader.Vector(prefix + "post_attention_norm.weight", e, &layer->post_attn_norm));
  return loader.Vector(prefix + "post_ffw_norm.weight", e, &layer->post_ffn_norm);
}

Status LoadWeights(WeightLoader& loader, Model* model) {
  const ModelConfig& config = model->config;
  KVASIR_RETURN_IF_ERROR(
      loader.Matrix("token_embd.weight", config.vocab, config.width, &model->embedding));
  KVASIR_RETURN_IF_ERROR(loader.Vector("output_norm.weight", config.width, &model->output_norm));
  if (loader.Has("output.weight")) {
    KVASIR_RETURN_IF_ERROR(
        loader.Matrix("output.weight", config.vocab, config.width, &model->output));
  }
  loader.MarkUsed("rope_freqs.weight");  // by ReadRope
  for (int32_t i = 0; i < config.layers; ++i) {
    model->layers.emplace_back();
    KVASIR_RETURN_IF_ERROR(LoadLayer(loader, config, i, &model->layers.back()));
  }
  return loader.CheckAllUsed();
}

}  // namespace

size_t Model::WeightBytes() const {
  size_t bytes = BytesOfWeight(embedding) + BytesOfWeight(output) + BytesOfBuffer(output_norm);
  for (const LayerWeights& layer : layers) bytes += BytesOfLayer(layer);
  return bytes;
}

Result<std::shared_ptr<const Model>> LoadGgufModel(const std::string& path, Backend& backend) {
  KVASIR_ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(path));
  auto model = std::make_shared<Model>();
  model->path = path;
  KVASIR_ASSIGN_OR_RETURN(model->config, ReadModelConfig(file));
  KVASIR_ASSIGN_OR_RETURN(model->vocabulary, ReadVocabulary(file));
  if (model->vocabulary.tokens.size() != static_cast<size_t>(model->config.vocab)) {
    return InvalidArgument(path + ": " + std::to_string(model->vocabulary.tokens.size()) +
                           " tokens for an embedding of " + std::to_string(model->config.vocab) +
                           " rows");
  }
  WeightLoader loader(file, backend);
  KVASIR_RETURN_IF_ERROR(LoadWeights(loader, model.get()));
  KVASIR_RETURN_IF_ERROR(backend.status());  // of uploads
  // The whole file: whatever KV depends on (weights, geometry, RoPE) stands in it.
  model->digest = DigestOf(file.bytes(), kModelVersion).Hex();
  return std::shared_ptr<const Model>(std::move(model));
}

}  // namespace kvasir
