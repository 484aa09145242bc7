// KvReader: KV from a pool back to host memory, on a stream and in device memory of its own, so
// that any thread may read beside a running step. Calls take turns.
#pragma once

#include <memory>
#include <mutex>
#include <span>

#include "kernels/cuda/device_buffers.h"
#include "kernels/cuda/kv_loader.h"
#include "kernels/cuda/kv_pool.h"

namespace kvasir::cuda {

class KvReader {
 public:
  // Loads that are under way come first; the loader must outlive this.
  static Result<std::unique_ptr<KvReader>> Create(KvLoader* loader);
  KvReader(Stream stream, KvLoader* loader) : stream_(stream), loader_(loader) {}
  ~KvReader();

  // fp32 [tokens][G*D] each; what steps wrote to the blocks is complete on the card.
  Status Read(const CudaKvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
              int32_t tokens, float* host_k, float* host_v);

 private:
  std::mutex mutex_;
  Stream stream_;
  KvLoader* const loader_;
  DeviceBuffers buffers_;
};

}  // namespace kvasir::cuda
