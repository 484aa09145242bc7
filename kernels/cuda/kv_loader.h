// KvLoader: chunk KV from host memory into a pool, beside a running step: planes are gathered in
// pinned memory, copied in one piece on a stream of their own, then dequantised, turned and
// scattered by one kernel.
//
// Load may be called from any thread; calls take turns. When it returns the blocks are filled, for
// every stream.
#pragma once

#include <memory>
#include <mutex>
#include <span>

#include "kernels/cuda/device_buffers.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/rotations.h"

namespace kvasir::cuda {

class KvLoader {
 public:
  static Result<std::unique_ptr<KvLoader>> Create(RotationTables* rotations);
  explicit KvLoader(Stream stream, RotationTables* rotations)
      : stream_(stream), rotations_(rotations) {}
  ~KvLoader();

  Status Load(const CudaKvPool& pool, int32_t layer, const KvLayerPlanes& planes,
              std::span<const int32_t> block_ids, const RopeTable* rope);

 private:
  Status Reserve(size_t bytes);

  std::mutex mutex_;
  Stream stream_;
  RotationTables* const rotations_;
  DeviceBuffers buffers_;
  char* pinned_ = nullptr;
  size_t pinned_bytes_ = 0;
};

}  // namespace kvasir::cuda
