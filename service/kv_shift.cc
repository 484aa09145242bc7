#include "service/kv_shift.h"

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "service/engine_call.h"

namespace kvasir {
namespace {

using Blocks = std::shared_ptr<const KvBlocks>;

// Turns keys by positions 0, 1, ... and back.
class Turner {
 public:
  Turner(const RopeTable& rope, int32_t positions) : rope_(rope), half_(rope.inv_freq.size()) {
    cos_.resize(half_ * static_cast<size_t>(positions));
    sin_.resize(cos_.size());
    for (int32_t p = 0; p < positions; ++p) {
      const size_t at = half_ * static_cast<size_t>(p);
      rope.CosSin(p, cos_.data() + at, sin_.data() + at);
    }
  }
  // One row's key of one head from where it lies to before RoPE.
  void Back(int32_t position, float* key) const {
    const float square = rope_.magnitude * rope_.magnitude;
    const bool interleaved = rope_.pairing == RopePairing::kInterleaved;
    const size_t at = half_ * static_cast<size_t>(position);
    for (size_t j = 0; j < half_; ++j) {
      float& first = key[interleaved ? 2 * j : j];
      float& second = key[interleaved ? 2 * j + 1 : j + half_];
      const float a = first, b = second, c = cos_[at + j] / square, s = sin_[at + j] / square;
      first = a * c + b * s;
      second = b * c - a * s;
    }
  }

 private:
  const RopeTable& rope_;
  size_t half_;
  std::vector<float> cos_, sin_;
};

// K before RoPE and V of a segment's rows in one layer, fp32 [rows][width].
struct LayerKv {
  std::vector<float> k, v;
};

// One fused segment: as it was stored, as the pass left it, and as it will be.
struct Shifted {
  SegmentPlan* plan = nullptr;
  Blocks stored, computed;
  std::unique_ptr<KvFill> fill;
};

class Shift {
 public:
  Shift(Engine& engine, std::vector<Shifted> segments)
      : engine_(engine), config_(engine.model().config), segments_(std::move(segments)) {
    int32_t longest = 0;
    for (const Shifted& segment : segments_) longest = std::max(longest, segment.plan->tokens());
    for (const RopeTable& rope : config_.ropes) turners_.emplace_back(rope, longest);
  }

  Status Run() {
    for (Shifted& segment : segments_) {
      KVASIR_ASSIGN_OR_RETURN(segment.fill, engine_.BeginLoad(segment.plan->reused()));
    }
    for (int32_t layer = 0; layer < config_.layers; ++layer) {
      KVASIR_RETURN_IF_ERROR(RunLayer(layer));
    }
    for (Shifted& segment : segments_) {
      segment.plan->blocks = segment.fill->blocks();
      segment.plan->repaired += static_cast<int32_t>(segment.plan->recompute.size());
      segment.plan->recompute.clear();
    }
    return Status::Ok();
  }

 private:
  size_t width() const {
    return static_cast<size_t>(config_.kv_heads) * static_cast<size_t>(config_.head_dim);
  }

  Result<LayerKv> Read(const KvBlocks& blocks, int32_t layer) const {
    LayerKv kv;
    KVASIR_RETURN_IF_ERROR(engine_.ReadBlocks(blocks, layer, &kv.k, &kv.v));
    const auto rope = static_cast<size_t>(config_.layer_rope[static_cast<size_t>(layer)]);
    const auto dim = static_cast<size_t>(config_.head_dim);
    for (size_t at = 0; at < kv.k.size(); at += dim) {
      turners_[rope].Back(static_cast<int32_t>(at / width()), kv.k.data() + at);
    }
    return kv;
  }

  Status RunLayer(int32_t layer) {
    std::vector<LayerKv> kv;
    std::vector<float> k(width(), 0.0f), v(width(), 0.0f);
    float rows = 0;
    for (const Shifted& segment : segments_) {
      KVASIR_ASSIGN_OR_RETURN(const LayerKv before, Read(*segment.stored, layer));
      KVASIR_ASSIGN_OR_RETURN(LayerKv now, Read(*segment.computed, layer));
      for (const int32_t row : segment.plan->recompute) {
        AddChange(before.k, now.k, row, &k);
        AddChange(before.v, now.v, row, &v);
        ++rows;
      }
      kv.push_back(std::move(now));
    }
    for (size_t i = 0; i < segments_.size(); ++i) {
      const std::vector<int32_t>& computed = segments_[i].plan->recompute;
      MoveOthers(k, rows, computed, &kv[i].k);
      MoveOthers(v, rows, computed, &kv[i].v);
      const KvLayerPlanes planes{DType::kF32,    segments_[i].plan->reused(),
                                 kv[i].k.data(), nullptr,
                                 kv[i].v.data(), nullptr};
      KVASIR_RETURN_IF_ERROR(segments_[i].fill->Load(planes));
    }
    return Status::Ok();
  }

  void AddChange(const std::vector<float>& before, const std::vector<float>& now, int32_t row,
                 std::vector<float>* sum) const {
    const size_t begin = static_cast<size_t>(row) * width();
    for (size_t i = 0; i < width(); ++i) (*sum)[i] += now[begin + i] - before[begin + i];
  }

  // `computed`: ascending; these rows stay.
  void MoveOthers(const std::vector<float>& sum, float rows, const std::vector<int32_t>& computed,
                  std::vector<float>* values) const {
    auto next = computed.begin();
    for (size_t row = 0; row * width() < values->size(); ++row) {
      if (next != computed.end() && static_cast<size_t>(*next) == row) {
        ++next;
        continue;
      }
      float* to = values->data() + row * width();
      for (size_t i = 0; i < width(); ++i) to[i] += sum[i] / rows;
    }
  }

  Engine& engine_;
  const ModelConfig& config_;
  std::vector<Shifted> segments_;
  std::vector<Turner> turners_;  // by rope table
};

}  // namespace

Status KvShift::Apply(PromptPlan* plan, double* looked_rows) {
  std::vector<Blocks> computed;
  Request pass;
  pass.prompt = *plan;
  pass.max_tokens = 0;
  pass.on_segments = [&computed](std::vector<Blocks> segments) { computed = std::move(segments); };
  std::vector<Shifted> segments;
  int64_t rows = 0;
  for (SegmentPlan& segment : plan->segments) {
    rows += static_cast<int64_t>(segment.recompute.size());
  }
  if (rows == 0) return Status::Ok();
  KVASIR_RETURN_IF_ERROR(RunToEnd(engine_, std::move(pass)).status());
  size_t next = 0;
  for (SegmentPlan& segment : plan->segments) {
    if (segment.tokens() == 0) continue;
    const Blocks& now = computed.at(next++);
    if (segment.reuse != ReuseKind::kFused || now == nullptr) continue;
    if (segment.blocks->complete()) {
      segments.push_back({&segment, segment.blocks, now, nullptr});
      continue;
    }
    // It could not be loaded, so the pass computed all of it: nothing stored is left to move.
    segment.blocks = now;
    segment.repaired = segment.reused();
    segment.recompute.clear();
  }
  *looked_rows += static_cast<double>(plan->rows() - rows);
  return Shift(engine_, std::move(segments)).Run();
}

}  // namespace kvasir
