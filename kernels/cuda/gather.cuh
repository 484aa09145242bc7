// Backend::GatherRows on the card.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device.h"

namespace kvasir::cuda {

// out [R][E] = x rows `rows` [R], indices in device memory.
Status GatherRows(Stream stream, const TensorView& x, const int32_t* rows, const TensorView& out);

}  // namespace kvasir::cuda
