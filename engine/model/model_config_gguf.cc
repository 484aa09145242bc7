#include "engine/model/model_config_gguf.h"

#include <cmath>
#include <optional>
#include <utility>

#include "engine/model/rope_gguf.h"

namespace kvasir {
namespace {

constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxContext = int64_t{1} << 30;
constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
constexpr int64_t kLeastTensorsPerLayer = 9;
// gemma3 keeps these two out of its files.
constexpr double kGemmaLocalTheta = 10000.0;
constexpr int64_t kGemmaPattern = 6;
constexpr int32_t kGemma27BLayers = 62;

struct ArchitectureTraits {
  std::string_view name;
  Architecture architecture;
  RopePairing pairing;
};

constexpr ArchitectureTraits kArchitectures[] = {
    {"llama", Architecture::kLlama, RopePairing::kInterleaved},
    {"qwen2", Architecture::kQwen2, RopePairing::kHalfSplit},
    {"qwen3", Architecture::kQwen3, RopePairing::kHalfSplit},
    {"gemma3", Architecture::kGemma3, RopePairing::kHalfSplit},
};

Result<ArchitectureTraits> ReadArchitecture(const GgufFile& file) {
  KVASIR_ASSIGN_OR_RETURN(const std::string name, file.String("general.architecture"));
  for (const ArchitectureTraits& traits : kArchitectures) {
    if (traits.name == name) return traits;
  }
  return Unimplemented(file.path() + ": architecture \"" + name +
                       "\"; supported are llama, qwen2, qwen3, gemma3");
}

// Metadata of one architecture, its keys without the prefix.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  const std::string& prefix() const { return prefix_; }
  bool Has(const std::string& key) const { return file_.Has(prefix_ + key); }
  const GgufValue* Find(const std::string& key) const { return file_.Find(prefix_ + key); }
  Result<int32_t> Int(const std::string& key, int64_t low, int64_t high) const {
    KVASIR_ASSIGN_OR_RETURN(const int64_t value, file_.Integer(prefix_ + key, low, high));
    return static_cast<int32_t>(value);
  }
  Result<int32_t> IntOr(const std::string& key, int32_t fallback, int64_t low, int64_t high) const {
    return Has(key) ? Int(key, low, high) : Result<int32_t>(fallback);
  }
  Result<double> Real(const std::string& key) const { return file_.Real(prefix_ + key); }

  Status Bad(const std::string& what) const { return InvalidArgument(file_.path() + ": " + what); }
  Status Unsupported(const std::string& what) const {
    return Unimplemented(file_.path() + ": " + what);
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

bool IsZero(const GgufValue& value) {
  if (const auto* a = std::get_if<uint64_t>(&value.value)) return *a == 0;
  if (const auto* b = std::get_if<int64_t>(&value.value)) return *b == 0;
  if (const auto* c = std::get_if<double>(&value.value)) return *c == 0.0;
  if (const auto* d = std::get_if<bool>(&value.value)) return !*d;
  return false;
}

// Keys that would change the result of a forward pass which does not know them.
Status RefuseUnknownNumerics(const Keys& keys) {
  static constexpr std::pair<const char*, const char*> kRefused[] = {
      {"expert_count", "mixture of experts"},
      {"rope.dimension_sections", "M-RoPE"},
      {"attn_logit_softcapping", "soft-capped attention"},
      {"final_logit_softcapping", "soft-capped logits"},
      {"attention.clamp_kqv", "clamped QKV"},
      {"attention.max_alibi_bias", "ALiBi"},
      {"attention.temperature_scale", "attention temperature"},
      {"logit_scale", "scaled logits"},
      {"residual_scale", "scaled residuals"},
      {"embedding_scale", "scaled embeddings"},
      {"ssm.state_size", "state-space layers"},
      {"nextn_predict_layers", "next-token prediction layers"},
  };
  for (const auto& [key, what] : kRefused) {
    const GgufValue* value = keys.Find(key);
    if (value != nullptr && !IsZero(*value)) {
      return keys.Unsupported("metadata \"" + keys.prefix() + key + "\" asks for " + what +
                              ", which is not supported");
    }
  }
  return Status::Ok();
}

Status ReadGeometry(const GgufFile& file, const Keys& keys, ModelConfig* config) {
  // A layer has nine tensors at least: a huge count is refused before anything is sized by it.
  const auto most_layers = static_cast<int64_t>(file.tensors().size()) / kLeastTensorsPerLayer;
  KVASIR_ASSIGN_OR_RETURN(config->layers, keys.Int("block_count", 1, most_layers));
  KVASIR_ASSIGN_OR_RETURN(config->width, keys.Int("embedding_length", 1, kMaxWidth));
  KVASIR_ASSIGN_OR_RETURN(config->heads, keys.Int("attention.head_count", 1, kMaxHeads));
  KVASIR_ASSIGN_OR_RETURN(config->kv_heads,
                          keys.IntOr("attention.head_count_kv", config->heads, 1, config->heads));
  KVASIR_ASSIGN_OR_RETURN(config->ffn_width, keys.Int("feed_forward_length", 1, 8 * kMaxWidth));
  KVASIR_ASSIGN_OR_RETURN(config->context, keys.Int("context_length", 1, kMaxContext));
  if (config->heads % config->kv_heads != 0) {
    return keys.Bad(std::to_string(config->heads) + " query heads are no multiple of " +
                    std::to_string(config->kv_heads) + " KV heads");
  }
  if (!keys.Has("attention.key_length") && config->width % config->heads != 0) {
    return keys.Bad("width " + std::to_string(config->width) + " is no multiple of " +
                    std::to_string(config->heads) + " heads");
  }
  KVASIR_ASSIGN_OR_RETURN(
      config->head_dim,
      keys.IntOr("attention.key_length", config->width / config->heads, 2, kMaxHeadDim));
  KVASIR_ASSIGN_OR_RETURN(const int32_t value_dim,
                          keys.IntOr("attention.value_length", config->head_dim, 1, kMaxHeadDim));
  if (config->head_dim < 2 || config->head_dim > kMaxHeadDim || config->head_dim % 2 != 0) {
    return keys.Bad("head dimension " + std::to_string(config->head_dim) +
                    ", expected an even number from 2 to " + std::to_string(kMaxHeadDim));
  }
  if (value_dim != config->head_dim) {
    return keys.Unsupported("keys of " + std::to_string(config->head_dim) + " and values of " +
                            std::to_string(value_dim) + " dimensions; they must be equal");
  }
  return Status::Ok();
}

Status ReadVocabularySize(const GgufFile& file, const Keys& keys, ModelConfig* config) {
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr) return keys.Bad("tensor \"token_embd.weight\" is missing");
  if (embedding->dims.size() != 2 || embedding->outputs() > kMaxVocabulary) {
    return keys.Bad("tensor \"token_embd.weight\" has no shape of a vocabulary");
  }
  config->vocab = static_cast<int32_t>(embedding->outputs());
  return Status::Ok();
}

Status ReadNumerics(const Keys& keys, ModelConfig* config) {
  KVASIR_ASSIGN_OR_RETURN(const double eps, keys.Real("attention.layer_norm_rms_epsilon"));
  if (eps < 0.0 || eps > 1.0) return keys.Bad("norm epsilon " + std::to_string(eps));
  config->norm_eps = static_cast<float>(eps);
  const bool gemma = config->architecture == Architecture::kGemma3;
  config->qk_norm = gemma || config->architecture == Architecture::kQwen3;
  config->post_norms = gemma;
  config->activation = gemma ? ActivationKind::kGeluTanh : ActivationKind::kSilu;
  config->embed_scale = gemma ? std::sqrt(static_cast<float>(config->width)) : 1.0F;
  // gemma3's 27B scales by the width of a head's share of E, not by D.
  const bool per_share = gemma && config->layers == kGemma27BLayers;
  const int32_t scale_dim = per_share ? config->width / config->heads : config->head_dim;
  config->attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(scale_dim)));
  if (keys.Has("attention.scale")) {
    KVASIR_ASSIGN_OR_RETURN(const double scale, keys.Real("attention.scale"));
    if (scale <= 0.0 || scale > 1e3) return keys.Bad("attention scale " + std::to_string(scale));
    config->attention_scale = static_cast<float>(scale);
  }
  return Status::Ok();
}

// gemma3: every sixth layer is global; local layers have a window and their own, unscaled RoPE.
// Other architectures: one RoPE; a window, if the file names one, holds for all layers.
Status ReadLayers(const GgufFile& file, const Keys& keys, RopePairing pairing,
                  ModelConfig* config) {
  const RopeSource source{keys.prefix(), pairing, config->head_dim, config->context};
  KVASIR_ASSIGN_OR_RETURN(RopeTable global, ReadRope(file, source));
  KVASIR_ASSIGN_OR_RETURN(const int32_t window,
                          keys.IntOr("attention.sliding_window", 0, 0, kMaxContext));
  const auto layers = static_cast<size_t>(config->layers);
  config->layer_rope.assign(layers, 0);
  config->layer_window.assign(layers, window);
  const int32_t dims = global.rotary_dims;
  config->ropes.push_back(std::move(global));
  if (config->architecture != Architecture::kGemma3 || window == 0) return Status::Ok();

  const GgufValue* pattern = keys.Find("attention.sliding_window_pattern");
  if (pattern != nullptr && pattern->type == GgufType::kArray) {
    return keys.Unsupported("a sliding window pattern given layer by layer");
  }
  KVASIR_ASSIGN_OR_RETURN(const int32_t period, keys.IntOr("attention.sliding_window_pattern",
                                                           kGemmaPattern, 1, kMaxHeads));
  double theta = kGemmaLocalTheta;
  if (keys.Has("rope.freq_base_swa")) {
    KVASIR_ASSIGN_OR_RETURN(theta, keys.Real("rope.freq_base_swa"));
    if (theta <= 1.0) return keys.Bad("local RoPE base " + std::to_string(theta));
  }
  config->ropes.push_back(RopeTable::Plain(pairing, dims, theta));
  for (size_t layer = 0; layer < layers; ++layer) {
    const bool is_global = (static_cast<int32_t>(layer) + 1) % period == 0;
    config->layer_rope[layer] = is_global ? 0 : 1;
    if (is_global) config->layer_window[layer] = 0;
  }
  return Status::Ok();
}

std::string NameOf(const GgufFile& file) {
  const Result<std::string> name = file.String("general.name");
  if (name.ok() && !name->empty()) return *name;
  const std::string& path = file.path();
  const size_t slash = path.rfind('/');
  std::string stem = path.substr(slash == std::string::npos ? 0 : slash + 1);
  return stem.substr(0, stem.rfind('.'));
}

}  // namespace

Result<ModelConfig> ReadModelConfig(const GgufFile& file) {
  KVASIR_ASSIGN_OR_RETURN(const ArchitectureTraits traits, ReadArchitecture(file));
  const Keys keys(file, traits.name);
  ModelConfig config;
  config.architecture = traits.architecture;
  config.name = NameOf(file);
  KVASIR_RETURN_IF_ERROR(RefuseUnknownNumerics(keys));
  KVASIR_RETURN_IF_ERROR(ReadGeometry(file, keys, &config));
  KVASIR_RETURN_IF_ERROR(ReadVocabularySize(file, keys, &config));
  KVASIR_RETURN_IF_ERROR(ReadNumerics(keys, &config));
  KVASIR_RETURN_IF_ERROR(ReadLayers(file, keys, traits.pairing, &config));
  // All supported kinds of RoPE have frequencies that no prompt changes: chunks may move.
  config.reuse = {true, ""};
  return config;
}

}  // namespace kvasir
