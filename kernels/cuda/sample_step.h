// QueueSample: all that Backend::Sample queues: parameters to the card, the kernels, ids back.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/draw.h"
#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device_buffers.h"
#include "kernels/cuda/host_fetches.h"

namespace kvasir::cuda {

// `tokens` are handed out by `fetches`. Rows and vocabulary as Backend::Sample's, checked.
Status QueueSample(Stream stream, DeviceBuffers* buffers, HostFetches* fetches,
                   const TensorView& logits, std::span<const RowDraw> draws,
                   std::span<int32_t> tokens);

}  // namespace kvasir::cuda
