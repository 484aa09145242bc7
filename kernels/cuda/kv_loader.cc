#include "kernels/cuda/kv_loader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

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

// Where the planes of a layer lie once they are gathered.
class GatheredPlanes {
 public:
  GatheredPlanes(const KvGeometry& g, const KvLayerPlanes& planes,
                 std::span<const int32_t> block_ids)
      : planes_(planes) {
    const auto tokens = static_cast<size_t>(planes.tokens), heads = static_cast<size_t>(g.kv_heads);
    const size_t width = heads * static_cast<size_t>(g.head_dim);
    const size_t values = BytesOf(planes.dtype, tokens * width);
    const size_t groups = static_cast<size_t>(Int4GroupsFor(planes.tokens)) * width;
    blocks_ = all_.Add(block_ids.data(), block_ids.size_bytes());
    k_ = all_.Add(planes.k, values);
    v_ = all_.Add(planes.v, values);
    k_scale_ = all_.Add(planes.k_scale, width * sizeof(float));
    v_scale_ = all_.Add(planes.v_scale, tokens * heads * sizeof(float));
    k_step_ = all_.Add(planes.k_grid.step, groups * sizeof(uint16_t));
    k_low_ = all_.Add(planes.k_grid.low, groups * sizeof(uint16_t));
    v_step_ = all_.Add(planes.v_grid.step, tokens * heads * sizeof(uint16_t));
    v_low_ = all_.Add(planes.v_grid.low, tokens * heads * sizeof(uint16_t));
  }
  size_t bytes() const { return all_.size(); }
  void WriteTo(char* to) const { all_.WriteTo(to); }

  // For a kernel, the planes lying at `device`.
  LoadArgs At(const char* device, int32_t layer, const RotationView& rotations) const {
    const auto half = [&](size_t at) { return reinterpret_cast<const uint16_t*>(device + at); };
    const auto single = [&](size_t at) { return reinterpret_cast<const float*>(device + at); };
    LoadArgs args;
    args.layer = layer;
    args.planes = {planes_.dtype,
                   planes_.tokens,
                   device + k_,
                   single(k_scale_),
                   device + v_,
                   single(v_scale_),
                   {half(k_step_), half(k_low_)},
                   {half(v_step_), half(v_low_)}};
    args.blocks = reinterpret_cast<const int32_t*>(device + blocks_);
    args.rotations = rotations;
    return args;
  }

 private:
  const KvLayerPlanes& planes_;
  Gathered all_;
  size_t blocks_, k_, v_, k_scale_, v_scale_, k_step_, k_low_, v_step_, v_low_;
};

}  // namespace

Result<std::unique_ptr<KvLoader>> KvLoader::Create(RotationTables* rotations) {
  KVASIR_ASSIGN_OR_RETURN(Stream stream, CreateStream(true));
  return std::make_unique<KvLoader>(stream, rotations);
}

KvLoader::~KvLoader() {
  static_cast<void>(Synchronize(stream_));  // a lost card has been told of
  DestroyStream(stream_);
  for (const Slab& slab : slabs_) FreeDeviceMemory(slab.device);
}

Status KvLoader::Grow(Slab& slab, size_t bytes) {
  if (bytes <= slab.bytes) return Status::Ok();
  constexpr size_t kLeast = 4 * kGroupBytes;
  const size_t rounded = std::bit_ceil(std::max(bytes, kLeast));
  slab.bytes = 0;
  FreeDeviceMemory(std::exchange(slab.device, nullptr));
  KVASIR_RETURN_IF_ERROR(slab.pinned.Reserve(rounded));
  KVASIR_ASSIGN_OR_RETURN(void* device, AllocateDeviceMemory(rounded));
  slab.device = static_cast<char*>(device);
  slab.bytes = rounded;
  return Status::Ok();
}

// Room behind gathered_, in the slab at hand or in the next one once it is free. Takes its turn.
Status KvLoader::MakeRoom(size_t bytes) {
  if (gathered_ + bytes <= slabs_[slab_].bytes) return Status::Ok();
  {
    const std::lock_guard lock(mutex_);
    KVASIR_RETURN_IF_ERROR(Send());
  }
  const size_t next = (slab_ + 1) % slabs_.size();
  KVASIR_RETURN_IF_ERROR(slabs_[next].free.Await());
  KVASIR_RETURN_IF_ERROR(Grow(slabs_[next], bytes));
  const std::lock_guard lock(mutex_);
  slab_ = next;
  gathered_ = sent_ = 0;
  return Status::Ok();
}

Status KvLoader::Load(const CudaKvPool& pool, int32_t layer, const KvLayerPlanes& planes,
                      std::span<const int32_t> block_ids, const RopeTable* rope) {
  const std::lock_guard turn(turn_);
  const GatheredPlanes all(pool.geometry(), planes, block_ids);
  KVASIR_ASSIGN_OR_RETURN(const RotationView rotations,
                          rotations_->Get(rope, planes.tokens, stream_));
  KVASIR_RETURN_IF_ERROR(MakeRoom(all.bytes()));
  const Slab& slab = slabs_[slab_];
  all.WriteTo(slab.pinned.data() + gathered_);
  Item item = {pool,
               all.At(slab.device + gathered_, layer, rotations),
               {block_ids.begin(), block_ids.end()}};

  const std::lock_guard lock(mutex_);
  gathered_ += all.bytes();
  next_.push_back(std::move(item));
  ++under_way_;
  DropLoaded();
  const bool last = layer + 1 == pool.layout().layers;
  return last || gathered_ - sent_ >= kGroupBytes ? Send() : Status::Ok();
}

// Under mutex_. After an error all stays gathered: whoever needs it sends it again, from the first.
Status KvLoader::Send() {
  if (next_.empty()) return Status::Ok();
  Slab& slab = slabs_[slab_];
  KVASIR_RETURN_IF_ERROR(
      CopyToDevice(slab.device + sent_, slab.pinned.data() + sent_, gathered_ - sent_, stream_));
  for (Item& item : next_) {
    item.args.pool = &item.pool;
    KVASIR_RETURN_IF_ERROR(LoadKv(stream_, item.args));
  }
  KVASIR_RETURN_IF_ERROR(slab.free.Record(stream_));
  EventOwner loaded = TakeEvent();
  KVASIR_RETURN_IF_ERROR(loaded.Record(stream_));
  groups_.push_back({std::exchange(next_, {}), std::move(loaded)});
  sent_ = gathered_;
  return Status::Ok();
}

// Under mutex_.
EventOwner KvLoader::TakeEvent() {
  if (events_.empty()) return {};
  EventOwner event = std::move(events_.back());
  events_.pop_back();
  return event;
}

// Under mutex_.
void KvLoader::DropLoaded() {
  while (!groups_.empty()) {
    const Result<bool> passed = groups_.front().loaded.Passed();
    if (!passed.ok() || !*passed) return;
    under_way_ -= static_cast<int64_t>(groups_.front().items.size());
    events_.push_back(std::move(groups_.front().loaded));
    groups_.pop_front();
  }
}

bool KvLoader::Concerns(const std::vector<Item>& items, const CudaKvPool* pool, int32_t layer,
                        const std::vector<bool>& blocks) {
  return std::any_of(items.begin(), items.end(), [&](const Item& item) {
    if (pool != nullptr && item.pool.Layer(0) != pool->Layer(0)) return false;
    if (layer != kEveryLayer && item.args.layer != layer) return false;
    return std::any_of(item.blocks.begin(), item.blocks.end(), [&](int32_t id) {
      const auto at = static_cast<size_t>(id);
      return at < blocks.size() && blocks[at];
    });
  });
}

Status KvLoader::HoldBack(Stream stream, const CudaKvPool* pool, int32_t layer,
                          std::span<const int32_t> block_ids) {
  if (idle() || block_ids.empty()) return Status::Ok();
  const int32_t last = *std::max_element(block_ids.begin(), block_ids.end());
  std::vector<bool> blocks(static_cast<size_t>(last) + 1);
  for (const int32_t id : block_ids) blocks[static_cast<size_t>(id)] = true;
  const std::lock_guard lock(mutex_);
  DropLoaded();
  if (Concerns(next_, pool, layer, blocks)) KVASIR_RETURN_IF_ERROR(Send());
  for (const Group& group : groups_) {
    if (Concerns(group.items, pool, layer, blocks)) {
      KVASIR_RETURN_IF_ERROR(group.loaded.HoldBack(stream));
    }
  }
  return Status::Ok();
}

}  // namespace kvasir::cuda
