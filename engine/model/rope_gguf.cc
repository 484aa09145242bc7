#include "engine/model/rope_gguf.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

namespace kvasir {
namespace {

constexpr double kMaxTheta = 1e12;

Result<double> RealIn(const GgufFile& file, const std::string& key, double fallback, double low,
                      double high) {
  if (!file.Has(key)) return fallback;
  KVASIR_ASSIGN_OR_RETURN(const double value, file.Real(key));
  if (value < low || value > high) {
    return InvalidArgument(file.path() + ": metadata \"" + key + "\" is " + std::to_string(value) +
                           ", outside " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

// YaRN's line between dimensions that keep their frequency and those that are interpolated: the
// pair index whose wave turns `turns` times in `context` tokens.
double YarnPair(int32_t dims, double context, double turns, double theta) {
  return dims * std::log(context / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(theta));
}

Status ApplyYarn(const GgufFile& file, const RopeSource& source, double theta, double factor,
                 RopeTable* rope) {
  const std::string scaling = source.prefix + "rope.scaling.";
  for (const char* key : {"yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor"}) {
    if (file.Has(scaling + key)) {
      return Unimplemented(file.path() + ": metadata \"" + scaling + key + "\" is not supported");
    }
  }
  double trained = source.context;
  const std::string original = scaling + "original_context_length";
  if (file.Has(original)) {
    KVASIR_ASSIGN_OR_RETURN(const int64_t value, file.Integer(original, 1, int64_t{1} << 30));
    trained = static_cast<double>(value);
  }
  KVASIR_ASSIGN_OR_RETURN(const double fast,
                          RealIn(file, scaling + "yarn_beta_fast", 32.0, 1e-3, 1e6));
  KVASIR_ASSIGN_OR_RETURN(const double slow,
                          RealIn(file, scaling + "yarn_beta_slow", 1.0, 1e-3, 1e6));
  KVASIR_ASSIGN_OR_RETURN(const double attn_factor,
                          RealIn(file, scaling + "attn_factor", 1.0, 1e-3, 1e3));
  const int32_t dims = rope->rotary_dims;
  const double low = std::max(0.0, std::floor(YarnPair(dims, trained, fast, theta)));
  const double high = std::min(dims - 1.0, std::ceil(YarnPair(dims, trained, slow, theta)));
  for (size_t j = 0; j < rope->inv_freq.size(); ++j) {
    const double ramp = (static_cast<double>(j) - low) / std::max(0.001, high - low);
    const double keep = 1.0 - std::clamp(ramp, 0.0, 1.0);
    rope->inv_freq[j] *= keep + (1.0 - keep) / factor;
  }
  rope->magnitude = static_cast<float>(attn_factor * (1.0 + 0.1 * std::log(factor)));
  return Status::Ok();
}

Status ApplyScaling(const GgufFile& file, const RopeSource& source, double theta, RopeTable* rope) {
  const std::string scaling = source.prefix + "rope.scaling.";
  std::string type = "linear";
  if (file.Has(scaling + "type")) {
    KVASIR_ASSIGN_OR_RETURN(type, file.String(scaling + "type"));
  }
  if (type == "none") return Status::Ok();
  if (type != "linear" && type != "yarn") {
    return Unimplemented(file.path() + ": RoPE scaling \"" + type +
                         "\"; supported are none, linear, yarn and llama3's rope_freqs.weight");
  }
  // Files of 2023 call the factor of linear scaling rope.scale_linear.
  KVASIR_ASSIGN_OR_RETURN(const double old,
                          RealIn(file, source.prefix + "rope.scale_linear", 1.0, 0.0, 1e4));
  KVASIR_ASSIGN_OR_RETURN(double factor, RealIn(file, scaling + "factor", old, 0.0, 1e4));
  if (factor == 0.0) factor = 1.0;  // as written by some converters for "not scaled"
  if (type == "yarn") return ApplyYarn(file, source, theta, std::max(factor, 1.0), rope);
  for (double& frequency : rope->inv_freq) frequency /= factor;
  return Status::Ok();
}

// llama3: the file holds a divisor for every frequency.
Status ApplyFactors(const GgufFile& file, RopeTable* rope) {
  const GgufTensor* factors = file.FindTensor("rope_freqs.weight");
  if (factors == nullptr) return Status::Ok();
  const auto pairs = static_cast<int64_t>(rope->inv_freq.size());
  if (factors->dtype != DType::kF32 || !factors->IsVector(pairs)) {
    return InvalidArgument(file.path() + ": tensor \"rope_freqs.weight\" must be F32 with " +
                           std::to_string(pairs) + " values");
  }
  std::vector<float> values(rope->inv_freq.size());
  DequantizeRow(DType::kF32, factors->data.data(), values.size(), values.data());
  for (size_t j = 0; j < values.size(); ++j) {
    if (!std::isfinite(values[j]) || values[j] <= 0.0F) {
      return InvalidArgument(file.path() +
                             ": tensor \"rope_freqs.weight\" holds a value that is not positive");
    }
    rope->inv_freq[j] /= values[j];
  }
  return Status::Ok();
}

}  // namespace

Result<RopeTable> ReadRope(const GgufFile& file, const RopeSource& source) {
  const std::string dims_key = source.prefix + "rope.dimension_count";
  int64_t dims = source.head_dim;
  if (file.Has(dims_key)) {
    KVASIR_ASSIGN_OR_RETURN(dims, file.Integer(dims_key, 2, source.head_dim));
  }
  if (dims % 2 != 0) {
    return InvalidArgument(file.path() + ": RoPE over an odd number of dimensions, " +
                           std::to_string(dims));
  }
  KVASIR_ASSIGN_OR_RETURN(const double theta,
                          RealIn(file, source.prefix + "rope.freq_base", 10000.0, 1.01, kMaxTheta));
  RopeTable rope = RopeTable::Plain(source.pairing, static_cast<int32_t>(dims), theta);
  KVASIR_RETURN_IF_ERROR(ApplyScaling(file, source, theta, &rope));
  KVASIR_RETURN_IF_ERROR(ApplyFactors(file, &rope));
  return rope;
}

}  // namespace kvasir
