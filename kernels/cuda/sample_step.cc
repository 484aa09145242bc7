#include "kernels/cuda/sample_step.h"

#include <cstring>

#include "kernels/cuda/sample.cuh"

namespace kvasir::cuda {

Status QueueSample(Stream stream, DeviceBuffers* buffers, HostFetches* fetches,
                   const TensorView& logits, std::span<const RowDraw> draws,
                   std::span<int32_t> tokens) {
  const auto chunks = static_cast<size_t>(SampleChunks(logits.cols));
  KVASIR_ASSIGN_OR_RETURN(const Scratch params, buffers->Take(draws.size_bytes()));
  KVASIR_ASSIGN_OR_RETURN(const Scratch best,
                          buffers->Take(draws.size() * chunks * sizeof(uint64_t)));
  KVASIR_ASSIGN_OR_RETURN(const Scratch drawn, buffers->Take(tokens.size_bytes()));
  KVASIR_ASSIGN_OR_RETURN(char* source, fetches->Stage(draws.size_bytes()));
  std::memcpy(source, draws.data(), draws.size_bytes());
  KVASIR_RETURN_IF_ERROR(CopyToDevice(params.As<void>(), source, draws.size_bytes(), stream));
  SampleArgs args;
  args.logits = logits;
  args.draws = params.As<RowDraw>();
  args.count = static_cast<int64_t>(draws.size());
  args.best = best.As<uint64_t>();
  args.tokens = drawn.As<int32_t>();
  KVASIR_RETURN_IF_ERROR(Sample(stream, args));
  KVASIR_ASSIGN_OR_RETURN(char* staged, fetches->Stage(tokens.size_bytes()));
  KVASIR_RETURN_IF_ERROR(CopyToHost(staged, args.tokens, tokens.size_bytes(), stream));
  fetches->HandOut(staged, tokens.data(), tokens.size_bytes());
  return Status::Ok();
}

}  // namespace kvasir::cuda
