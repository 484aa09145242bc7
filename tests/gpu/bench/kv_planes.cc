#include "tests/gpu/bench/kv_planes.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kvasir::bench {

// A layer: k_scale [G][D], k [tokens][G][D], v [tokens][G][D], v_scale [tokens][G]; each begins at
// a multiple of 64 bytes.
KvPlanes::Part KvPlanes::PartOf(const KvLayout& layout, int32_t tokens) {
  const auto up = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
  const auto heads = static_cast<size_t>(layout.kv_heads);
  const size_t width = heads * static_cast<size_t>(layout.head_dim);
  const auto count = static_cast<size_t>(tokens);
  Part part;
  part.k = up(width * sizeof(float));
  part.v = part.k + up(count * width);
  part.v_scale = part.v + up(count * width);
  part.end = part.v_scale + up(count * heads * sizeof(float));
  return part;
}

void KvPlanes::Fill(void* data, uint64_t seed) {
  data_ = static_cast<const unsigned char*>(data);
  const Part part = PartOf(layout_, tokens_);
  FillRandom(seed, data, part.end * static_cast<size_t>(layout_.layers));
  for (int32_t layer = 0; layer < layout_.layers; ++layer) {
    auto* const at = static_cast<unsigned char*>(data) + static_cast<size_t>(layer) * part.end;
    std::fill_n(reinterpret_cast<float*>(at), part.k / sizeof(float), 0x1p-6f);
    std::fill_n(reinterpret_cast<float*>(at + part.v_scale),
                (part.end - part.v_scale) / sizeof(float), 0x1p-6f);
  }
}

KvPlanes KvPlanes::Plain(const KvLayout& layout, int32_t tokens, uint64_t seed) {
  KvPlanes planes;
  planes.layout_ = layout;
  planes.tokens_ = tokens;
  planes.plain_.resize(PartOf(layout, tokens).end * static_cast<size_t>(layout.layers));
  planes.Fill(planes.plain_.data(), seed);
  return planes;
}

Result<KvPlanes> KvPlanes::Pinned(const KvLayout& layout, int32_t tokens, uint64_t seed) {
  KvPlanes planes;
  planes.layout_ = layout;
  planes.tokens_ = tokens;
  KVASIR_ASSIGN_OR_RETURN(
      planes.pinned_, PinnedBytes(PartOf(layout, tokens).end * static_cast<size_t>(layout.layers)));
  planes.Fill(planes.pinned_.get(), seed);
  return Result<KvPlanes>(std::move(planes));
}

KvLayerPlanes KvPlanes::Layer(int32_t layer, int32_t tokens) const {
  KVASIR_CHECK(tokens <= tokens_);
  const Part part = PartOf(layout_, tokens_);
  const unsigned char* const at = data_ + static_cast<size_t>(layer) * part.end;
  KvLayerPlanes planes;
  planes.dtype = DType::kI8;
  planes.tokens = tokens;
  planes.k_scale = reinterpret_cast<const float*>(at);
  planes.k = at + part.k;
  planes.v = at + part.v;
  planes.v_scale = reinterpret_cast<const float*>(at + part.v_scale);
  return planes;
}

std::vector<KvLayerPlanes> KvPlanes::Layers() const {
  std::vector<KvLayerPlanes> layers;
  for (int32_t layer = 0; layer < layout_.layers; ++layer) layers.push_back(Layer(layer, tokens_));
  return layers;
}

double KvPlanes::bytes() const {
  const double heads = layout_.kv_heads, tokens = tokens_, dims = layout_.head_dim;
  const double layer = 2 * tokens * heads * dims + 4 * heads * dims + 4 * tokens * heads;
  return layer * layout_.layers;
}

}  // namespace kvasir::bench
