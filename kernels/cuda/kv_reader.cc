#include "kernels/cuda/kv_reader.h"

#include "kernels/cuda/kv_load.cuh"

namespace kvasir::cuda {

Result<std::unique_ptr<KvReader>> KvReader::Create(KvLoader* loader) {
  KVASIR_ASSIGN_OR_RETURN(Stream stream, CreateStream(false));
  return std::make_unique<KvReader>(stream, loader);
}

KvReader::~KvReader() { DestroyStream(stream_); }

Status KvReader::Read(const CudaKvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
                      int32_t tokens, float* host_k, float* host_v) {
  const std::lock_guard lock(mutex_);
  const KvLayout& layout = pool.layout();
  const size_t bytes = static_cast<size_t>(tokens) *
                       static_cast<size_t>(layout.kv_heads * layout.head_dim) * sizeof(float);
  KVASIR_RETURN_IF_ERROR(loader_->HoldBack(stream_, &pool, layer, block_ids));
  KVASIR_ASSIGN_OR_RETURN(const Scratch ids, buffers_.Take(block_ids.size_bytes()));
  KVASIR_ASSIGN_OR_RETURN(const Scratch k, buffers_.Take(bytes));
  KVASIR_ASSIGN_OR_RETURN(const Scratch v, buffers_.Take(bytes));
  KVASIR_RETURN_IF_ERROR(
      CopyToDevice(ids.As<void>(), block_ids.data(), block_ids.size_bytes(), stream_));
  KVASIR_RETURN_IF_ERROR(
      ReadKv(stream_, {&pool, layer, tokens, ids.As<int32_t>(), k.As<float>(), v.As<float>()}));
  KVASIR_RETURN_IF_ERROR(CopyToHost(host_k, k.As<float>(), bytes, stream_));
  KVASIR_RETURN_IF_ERROR(CopyToHost(host_v, v.As<float>(), bytes, stream_));
  return Synchronize(stream_);
}

}  // namespace kvasir::cuda
