#include "tests/engine/forward_oracle.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/dtype.h"

namespace kvasir::test {
namespace {

double Silu(double x) { return x / (1 + std::exp(-x)); }
double GeluTanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

void AddTo(std::vector<std::vector<double>>& x, const std::vector<std::vector<double>>& y) {
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t i = 0; i < x[t].size(); ++i) x[t][i] += y[t][i];
  }
}

}  // namespace

ForwardOracle::ForwardOracle(const std::string& path) {
  const GgufFile file = GgufFile::Open(path).value();
  arch_ = file.String("general.architecture").value();
  const auto integer = [&](const std::string& key) {
    return static_cast<int>(file.Integer(arch_ + "." + key, 0, INT32_MAX).value());
  };
  layers_ = integer("block_count");
  width_ = integer("embedding_length");
  heads_ = integer("attention.head_count");
  kv_heads_ = integer("attention.head_count_kv");
  gemma_ = arch_ == "gemma3";
  interleaved_ = arch_ == "llama";
  theta_ = file.Real(arch_ + ".rope.freq_base").value();
  eps_ = static_cast<float>(file.Real(arch_ + ".attention.layer_norm_rms_epsilon").value());
  if (gemma_) {
    window_ = integer("attention.sliding_window");
    const bool given = file.Has("gemma3.attention.sliding_window_pattern");
    pattern_ = given ? integer("attention.sliding_window_pattern") : 6;
  }
  for (const auto& [name, tensor] : file.tensors()) {
    Matrix matrix{static_cast<size_t>(tensor.outputs()), static_cast<size_t>(tensor.inputs()), {}};
    std::vector<float> row(matrix.k);
    const size_t row_bytes = BytesOf(tensor.dtype, matrix.k);
    for (size_t n = 0; n < matrix.n; ++n) {
      DequantizeRow(tensor.dtype, tensor.data.data() + n * row_bytes, matrix.k, row.data());
      matrix.values.insert(matrix.values.end(), row.begin(), row.end());
    }
    tensors_.emplace(name, std::move(matrix));
  }
  dim_ = static_cast<int>(Of("blk.0.attn_q.weight").n) / heads_;
}

ForwardOracle::Rows ForwardOracle::Times(const Rows& x, const std::string& name) const {
  const Matrix& w = Of(name + ".weight");
  const auto bias = tensors_.find(name + ".bias");
  Rows out(x.size(), std::vector<double>(w.n));
  for (size_t t = 0; t < x.size(); ++t) {
    for (size_t n = 0; n < w.n; ++n) {
      double sum = bias == tensors_.end() ? 0.0 : bias->second.values[n];
      for (size_t k = 0; k < w.k; ++k) sum += x[t][k] * w.values[n * w.k + k];
      out[t][n] = sum;
    }
  }
  return out;
}

ForwardOracle::Rows ForwardOracle::Norm(const Rows& x, const std::string& name,
                                        size_t width) const {
  const std::vector<double>& weight = Of(name + ".weight").values;
  Rows out = x;
  for (std::vector<double>& row : out) {
    for (size_t at = 0; at < row.size(); at += width) {
      double squares = 0;
      for (size_t i = 0; i < width; ++i) squares += row[at + i] * row[at + i];
      const double factor = 1 / std::sqrt(squares / static_cast<double>(width) + eps_);
      for (size_t i = 0; i < width; ++i) row[at + i] *= factor * weight[i];
    }
  }
  return out;
}

void ForwardOracle::Rotate(std::vector<double>& row, size_t position, double theta) const {
  const size_t dim = static_cast<size_t>(dim_);
  const auto factors = tensors_.find("rope_freqs.weight");
  for (size_t head = 0; head < row.size(); head += dim) {
    for (size_t j = 0; j < dim / 2; ++j) {
      double angle = static_cast<double>(position) *
                     std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(dim));
      if (factors != tensors_.end()) angle /= factors->second.values[j];
      double& a = row[head + (interleaved_ ? 2 * j : j)];
      double& b = row[head + (interleaved_ ? 2 * j + 1 : j + dim / 2)];
      const double x = a, y = b;
      a = x * std::cos(angle) - y * std::sin(angle);
      b = y * std::cos(angle) + x * std::sin(angle);
    }
  }
}

ForwardOracle::Rows ForwardOracle::Attention(int layer, Rows q, Rows k, const Rows& v) const {
  const bool local = gemma_ && (layer + 1) % pattern_ != 0;
  const double theta = local ? 10000.0 : theta_;
  for (size_t t = 0; t < q.size(); ++t) {
    Rotate(q[t], t, theta);
    Rotate(k[t], t, theta);
  }
  const size_t dim = static_cast<size_t>(dim_);
  const size_t group = static_cast<size_t>(heads_ / kv_heads_);
  Rows out(q.size(), std::vector<double>(q[0].size()));
  for (size_t t = 0; t < q.size(); ++t) {
    const size_t span = local ? std::min(t + 1, static_cast<size_t>(window_)) : t + 1;
    for (size_t h = 0; h < static_cast<size_t>(heads_); ++h) {
      const size_t kv = h / group * dim;
      std::vector<double> scores(span);
      double total = 0;
      for (size_t i = 0; i < span; ++i) {
        const size_t s = t + 1 - span + i;
        double dot = 0;
        for (size_t d = 0; d < dim; ++d) dot += q[t][h * dim + d] * k[s][kv + d];
        total += scores[i] = std::exp(dot / std::sqrt(static_cast<double>(dim)));
      }
      for (size_t i = 0; i < span; ++i) {
        const size_t s = t + 1 - span + i;
        for (size_t d = 0; d < dim; ++d) out[t][h * dim + d] += scores[i] / total * v[s][kv + d];
      }
    }
  }
  return out;
}

ForwardOracle::Rows ForwardOracle::Run(const std::vector<int32_t>& ids, int stop_layer, Rows* k,
                                       Rows* v) const {
  const Matrix& table = Of("token_embd.weight");
  const size_t width = static_cast<size_t>(width_);
  const double scale = gemma_ ? std::sqrt(static_cast<double>(width_)) : 1.0;
  Rows x;
  for (const int32_t id : ids) {
    const double* row = table.values.data() + static_cast<size_t>(id) * width;
    x.emplace_back(row, row + width);
    for (double& value : x.back()) value *= scale;
  }
  const size_t dim = static_cast<size_t>(dim_);
  for (int layer = 0; layer < layers_; ++layer) {
    const std::string p = "blk." + std::to_string(layer) + ".";
    Rows h = Norm(x, p + "attn_norm", width);
    Rows q = Times(h, p + "attn_q");
    *k = Times(h, p + "attn_k");
    *v = Times(h, p + "attn_v");
    if (tensors_.contains(p + "attn_q_norm.weight")) {
      q = Norm(q, p + "attn_q_norm", dim);
      *k = Norm(*k, p + "attn_k_norm", dim);
    }
    if (layer == stop_layer) return x;
    Rows delta = Times(Attention(layer, q, *k, *v), p + "attn_output");
    if (gemma_) delta = Norm(delta, p + "post_attention_norm", width);
    AddTo(x, delta);
    h = Norm(x, p + "ffn_norm", width);
    Rows gate = Times(h, p + "ffn_gate");
    const Rows up = Times(h, p + "ffn_up");
    for (size_t t = 0; t < gate.size(); ++t) {
      for (size_t f = 0; f < gate[t].size(); ++f) {
        gate[t][f] = (gemma_ ? GeluTanh(gate[t][f]) : Silu(gate[t][f])) * up[t][f];
      }
    }
    delta = Times(gate, p + "ffn_down");
    if (gemma_) delta = Norm(delta, p + "post_ffw_norm", width);
    AddTo(x, delta);
  }
  return x;
}

std::vector<std::vector<double>> ForwardOracle::Logits(const std::vector<int32_t>& ids) const {
  Rows k, v;
  const Rows x = Run(ids, -1, &k, &v);
  const Rows h = Norm(x, "output_norm", static_cast<size_t>(width_));
  return Times(h, tensors_.contains("output.weight") ? "output" : "token_embd");
}

void ForwardOracle::KeyValue(const std::vector<int32_t>& ids, int layer,
                             std::vector<std::vector<double>>* k,
                             std::vector<std::vector<double>>* v) const {
  Run(ids, layer, k, v);
}

}  // namespace kvasir::test
