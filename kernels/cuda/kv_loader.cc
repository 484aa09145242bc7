#include "kernels/cuda/kv_loader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cuda/kv_load.cuh"

namespace kvasir::cuda {
namespace {

// Host arrays that become one copy; each begins at a multiple of 256 bytes.
class Gathered {
 public:
  size_t Add(const void* data, size_t bytes) {
    if (data == nullptr) bytes = 0;
    parts_.push_back({data, size_, bytes});
    const size_t begin = size_;
    size_ = (size_ + bytes + 255) / 256 * 256;
    return begin;
  }
  size_t size() const { return size_; }
  void WriteTo(char* to) const {
    for (const Part& part : parts_) {
      if (part.bytes > 0) std::memcpy(to + part.begin, part.data, part.bytes);
    }
  }

 private:
  struct Part {
    const void* data;
    size_t begin, bytes;
  };
  std::vector<Part> parts_;
  size_t size_ = 0;
};

}  // namespace

Result<std::unique_ptr<KvLoader>> KvLoader::Create(RotationTables* rotations) {
  KVASIR_ASSIGN_OR_RETURN(Stream stream, CreateStream(true));
  return std::make_unique<KvLoader>(stream, rotations);
}

KvLoader::~KvLoader() {
  FreePinnedMemory(pinned_);
  DestroyStream(stream_);
}

Status KvLoader::Reserve(size_t bytes) {
  if (bytes <= pinned_bytes_) return Status::Ok();
  FreePinnedMemory(std::exchange(pinned_, nullptr));
  pinned_bytes_ = 0;
  constexpr size_t kLeast = size_t{1} << 20;
  const size_t rounded = std::bit_ceil(std::max(bytes, kLeast));
  KVASIR_ASSIGN_OR_RETURN(void* memory, AllocatePinnedMemory(rounded));
  pinned_ = static_cast<char*>(memory);
  pinned_bytes_ = rounded;
  return Status::Ok();
}

Status KvLoader::Load(const CudaKvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                      std::span<const int32_t> block_ids, const RopeTable* rope) {
  const std::lock_guard lock(mutex_);
  const KvGeometry& g = pool.geometry();
  const auto tokens = static_cast<size_t>(planes.tokens), heads = static_cast<size_t>(g.kv_heads);
  const size_t width = heads * static_cast<size_t>(g.head_dim);
  const size_t values = BytesOf(planes.dtype, tokens * width);
  const size_t groups = static_cast<size_t>(Int4GroupsFor(planes.tokens)) * width;
  Gathered all;
  const size_t blocks = all.Add(block_ids.data(), block_ids.size() * sizeof(int32_t));
  const size_t k = all.Add(planes.k, values), v = all.Add(planes.v, values);
  const size_t k_scale = all.Add(planes.k_scale, width * sizeof(float));
  const size_t v_scale = all.Add(planes.v_scale, tokens * heads * sizeof(float));
  const size_t k_step = all.Add(planes.k_grid.step, groups * sizeof(uint16_t));
  const size_t k_low = all.Add(planes.k_grid.low, groups * sizeof(uint16_t));
  const size_t v_step = all.Add(planes.v_grid.step, tokens * heads * sizeof(uint16_t));
  const size_t v_low = all.Add(planes.v_grid.low, tokens * heads * sizeof(uint16_t));

  KVASIR_RETURN_IF_ERROR(Reserve(all.size()));
  KVASIR_ASSIGN_OR_RETURN(const Scratch memory, buffers_.Take(all.size()));
  all.WriteTo(pinned_);
  char* const device = memory.As<char>();
  KVASIR_RETURN_IF_ERROR(CopyToDevice(device, pinned_, all.size(), stream_));
  const auto half = [&](size_t at) { return reinterpret_cast<const uint16_t*>(device + at); };
  const auto single = [&](size_t at) { return reinterpret_cast<const float*>(device + at); };
  LoadArgs args;
  args.pool = &pool;
  args.layer = layer;
  args.planes = {planes.dtype,
                 planes.tokens,
                 device + k,
                 single(k_scale),
                 device + v,
                 single(v_scale),
                 {half(k_step), half(k_low)},
                 {half(v_step), half(v_low)}};
  args.blocks = reinterpret_cast<const int32_t*>(device + blocks);
  KVASIR_ASSIGN_OR_RETURN(args.rotations, rotations_->Get(rope, planes.tokens, stream_));
  KVASIR_RETURN_IF_ERROR(LoadKv(stream_, args));
  return Synchronize(stream_);
}

}  // namespace kvasir::cuda
