// KvLoader: chunk KV from host memory into pools, beside running steps. A layer's planes are
// gathered in pinned memory, and Load returns. They go to the card in groups of a MiB or more, one
// copy and a kernel a layer (dequantise, turn, scatter), on an urgent stream of their own; what
// needs the blocks waits for its group's event on the card (HoldBack), no thread does.
//
// A group is sent when it is large enough, when the last layer of a pool is in it, or when somebody
// needs it. The arena is a ring: Load waits when all of it is on its way.
//
// Thread-safe; loads take turns, and nobody else waits for them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/cuda/kv_load.cuh"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/pinned_memory.h"
#include "kernels/cuda/rotations.h"

namespace kvasir::cuda {

class KvLoader {
 public:
  static constexpr size_t kGroupBytes = size_t{1} << 20;
  static constexpr int32_t kEveryLayer = -1;

  static Result<std::unique_ptr<KvLoader>> Create(RotationTables* rotations);
  explicit KvLoader(Stream stream, RotationTables* rotations)
      : stream_(stream), rotations_(rotations) {}
  ~KvLoader();

  // The planes may be freed when it returns. kResourceExhausted: there is no memory to gather or to
  // send them; loads before this one are as they were.
  Status Load(const CudaKvPool& pool, int32_t layer, const KvLayerPlanes& planes,
              std::span<const int32_t> block_ids, const RopeTable* rope);
  // What is queued on `stream` from now on finds what was loaded into these blocks of a pool (null
  // = of every one), in one layer or in every one.
  Status HoldBack(Stream stream, const CudaKvPool* pool, int32_t layer,
                  std::span<const int32_t> block_ids);
  // Nothing is under way: there is nothing to hold back.
  bool idle() const { return under_way_.load(std::memory_order_acquire) == 0; }

 private:
  // One layer of a chunk.
  struct Item {
    CudaKvPool pool;  // keeps the memory until it is loaded
    LoadArgs args;    // its pool is set when it is sent
    std::vector<int32_t> blocks;
  };
  struct Group {
    std::vector<Item> items;
    EventOwner loaded;
  };
  struct Slab {
    PinnedMemory pinned;
    char* device = nullptr;
    size_t bytes = 0;
    EventOwner free;  // what was sent from it has been loaded
  };

  Status MakeRoom(size_t bytes);
  Status Grow(Slab& slab, size_t bytes);
  Status Send();
  EventOwner TakeEvent();
  void DropLoaded();
  static bool Concerns(const std::vector<Item>& items, const CudaKvPool* pool, int32_t layer,
                       const std::vector<bool>& blocks);

  const Stream stream_;
  RotationTables* const rotations_;
  std::mutex turn_;  // of loads; taken before mutex_
  // Changed under both, and so read under either.
  std::array<Slab, 4> slabs_;
  size_t slab_ = 0;
  size_t gathered_ = 0;  // of the slab: the end of what is complete

  std::mutex mutex_;  // the rest; held while work is queued, never while anybody waits
  size_t sent_ = 0;   // of the slab: where the group that is gathered begins
  std::vector<Item> next_;
  std::deque<Group> groups_;  // sent, in order
  std::vector<EventOwner> events_;
  std::atomic<int64_t> under_way_{0};  // items, gathered and sent
};

}  // namespace kvasir::cuda
