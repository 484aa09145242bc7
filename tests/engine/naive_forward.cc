#include "tests/engine/naive_forward.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <utility>

namespace kvasir::test {
namespace {

// A matrix in backend memory.
struct Matrix {
  Matrix(Backend& backend, int64_t rows, int64_t cols) {
    auto allocated = backend.Allocate(static_cast<size_t>(rows * cols) * sizeof(float));
    EXPECT_TRUE(allocated.ok());
    buffer = std::move(allocated).value();
    view = F32View(buffer->f32(), rows, cols);
  }
  std::vector<float> Values(Backend& backend) const {
    std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
    backend.Download(view.data, values.data(), values.size() * sizeof(float));
    return values;
  }
  std::unique_ptr<Buffer> buffer;
  TensorView view;
};

// <R(distance) q, k> over one head.
double RotatedDot(const RopeTable& rope, int64_t distance, const float* q, const float* k,
                  int32_t dims) {
  double sum = 0;
  const int32_t half = rope.rotary_dims / 2;
  for (int32_t j = 0; j < half; ++j) {
    const bool interleaved = rope.pairing == RopePairing::kInterleaved;
    const int32_t a = interleaved ? 2 * j : j, b = interleaved ? 2 * j + 1 : j + half;
    const double angle = static_cast<double>(distance) * rope.inv_freq[size_t(j)];
    const double c = std::cos(angle), s = std::sin(angle);
    sum += (q[a] * c - q[b] * s) * k[a] + (q[a] * s + q[b] * c) * k[b];
  }
  sum *= double{rope.magnitude} * double{rope.magnitude};
  for (int32_t d = rope.rotary_dims; d < dims; ++d) sum += double{q[d]} * k[d];
  return sum;
}

class Naive {
 public:
  Naive(const Model& model, Backend& backend, const SightOf& sight, int64_t rows)
      : model_(model), config_(model.config), backend_(backend), sight_(sight), rows_(rows) {}

  std::vector<float> Run(const std::vector<int32_t>& tokens) {
    Matrix x = Make(config_.width);
    backend_.Embed(*model_.embedding, tokens, config_.embed_scale, x.view);
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      const LayerWeights& w = model_.layers[size_t(layer)];
      Matrix h = Normed(x, *w.attn_norm);
      AddTo(x, Project(Attention(layer, h), *w.o, nullptr), w.post_attn_norm);
      h = Normed(x, *w.ffn_norm);
      Matrix gate = Project(h, *w.gate, nullptr);
      const Matrix up = Project(h, *w.up, nullptr);
      backend_.Activate(config_.activation, gate.view, up.view, gate.view);
      AddTo(x, Project(gate, *w.down, nullptr), w.post_ffn_norm);
    }
    const Matrix logits = Project(Normed(x, *model_.output_norm), model_.OutputHead(), nullptr);
    const std::vector<float> all = logits.Values(backend_);
    return {all.end() - config_.vocab, all.end()};
  }

 private:
  Matrix Make(int64_t cols) { return {backend_, rows_, cols}; }
  Matrix Normed(const Matrix& x, const Buffer& weight) {
    Matrix out = Make(config_.width);
    backend_.Norm(NormKind::kRms, x.view, config_.width, weight.f32(), nullptr, config_.norm_eps,
                  out.view);
    return out;
  }
  Matrix Project(const Matrix& x, const PackedWeight& weight, const std::unique_ptr<Buffer>* bias) {
    Matrix out = Make(weight.outputs());
    backend_.MatMul(x.view, weight, bias && *bias ? (*bias)->f32() : nullptr, false, out.view);
    return out;
  }
  void AddTo(Matrix& x, Matrix delta, const std::unique_ptr<Buffer>& norm) {
    if (norm) {
      backend_.Norm(NormKind::kRms, delta.view, config_.width, norm->f32(), nullptr,
                    config_.norm_eps, delta.view);
    }
    backend_.Add(x.view, delta.view);
  }
  void HeadNorm(Matrix& x, const std::unique_ptr<Buffer>& weight) {
    if (!weight) return;
    backend_.Norm(NormKind::kRms, x.view, config_.head_dim, weight->f32(), nullptr,
                  config_.norm_eps, x.view);
  }

  Matrix Attention(int32_t layer, const Matrix& h) {
    const LayerWeights& w = model_.layers[size_t(layer)];
    Matrix q = Project(h, *w.q, &w.q_bias), k = Project(h, *w.k, &w.k_bias);
    const Matrix v = Project(h, *w.v, &w.v_bias);
    HeadNorm(q, w.q_norm);
    HeadNorm(k, w.k_norm);
    const Heads heads{q.Values(backend_), k.Values(backend_), v.Values(backend_)};
    std::vector<float> attended(heads.q.size());
    for (int32_t row = 0; row < rows_; ++row) {
      for (int32_t head = 0; head < config_.heads; ++head) {
        Attend(layer, row, head, heads, &attended);
      }
    }
    Matrix out = Make(int64_t{config_.heads} * config_.head_dim);
    backend_.Upload(attended.data(), out.view.data, attended.size() * sizeof(float));
    return out;
  }

  // Host copies, [rows][H*D] and [rows][G*D] twice.
  struct Heads {
    std::vector<float> q, k, v;
  };

  void Attend(int32_t layer, int32_t row, int32_t head, const Heads& heads,
              std::vector<float>* out) {
    const int32_t dims = config_.head_dim;
    const int64_t kv_at = int64_t{head / (config_.heads / config_.kv_heads)} * dims;
    const int32_t window = config_.layer_window[size_t(layer)];
    const RopeTable& rope = config_.ropes[size_t(config_.layer_rope[size_t(layer)])];
    const int64_t width = int64_t{config_.kv_heads} * dims;
    const int64_t query_at = (int64_t{row} * config_.heads + head) * dims;
    const float* query = heads.q.data() + query_at;
    std::vector<double> scores(size_t(rows_), -std::numeric_limits<double>::infinity());
    double top = -std::numeric_limits<double>::infinity();
    for (int32_t key = 0; key < rows_; ++key) {
      const Sight sight = sight_(row, key);
      if (!sight.visible || (window > 0 && sight.distance >= window)) continue;
      scores[size_t(key)] =
          config_.attention_scale *
          RotatedDot(rope, sight.distance, query, heads.k.data() + key * width + kv_at, dims);
      top = std::max(top, scores[size_t(key)]);
    }
    std::vector<double> sum(size_t(dims), 0.0);
    double total = 0;
    for (int32_t key = 0; key < rows_; ++key) {
      const double weight = std::exp(scores[size_t(key)] - top);
      total += weight;
      for (int32_t d = 0; d < dims; ++d) {
        sum[size_t(d)] += weight * heads.v[size_t(key * width + kv_at + d)];
      }
    }
    float* to = out->data() + query_at;
    for (int32_t d = 0; d < dims; ++d) to[d] = static_cast<float>(sum[size_t(d)] / total);
  }

  const Model& model_;
  const ModelConfig& config_;
  Backend& backend_;
  const SightOf& sight_;
  const int64_t rows_;
};

}  // namespace

Sight CausalSight(int32_t row, int32_t key) { return {key <= row, int64_t{row} - key}; }

std::vector<float> NaiveForward(const Model& model, Backend& backend,
                                const std::vector<int32_t>& tokens, const SightOf& sight) {
  return Naive(model, backend, sight, static_cast<int64_t>(tokens.size())).Run(tokens);
}

}  // namespace kvasir::test
