// Backend::Sample on the card: one token a row, without sorting.
#pragma once

#include "kernels/core/draw.h"
#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

// Logits of a row that one block looks through for the highest.
inline constexpr int64_t kSampleChunk = 8192;
inline int64_t SampleChunks(int64_t vocab) { return (vocab + kSampleChunk - 1) / kSampleChunk; }

// More, and sums of weights could overflow.
inline constexpr int64_t kSampleMaxVocab = int64_t{1} << 22;

struct SampleArgs {
  TensorView logits;               // [R][V]
  const RowDraw* draws = nullptr;  // [N] on the card
  int64_t count = 0;               // N
  uint64_t* best = nullptr;        // [N][SampleChunks(V)], room between the two kernels
  int32_t* tokens = nullptr;       // [N]; -1 = no token can be drawn
};

Status Sample(Stream stream, const SampleArgs& args);

}  // namespace kvasir::cuda
