// Backend::Embed on the card: rows of a packed table.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

// out [T][E] = table[token_ids] * scale; token_ids [T] in device memory, each < table.n.
Status Embed(Stream stream, const WeightLayout& layout, const void* table, const int32_t* token_ids,
             float scale, const TensorView& out);

}  // namespace kvasir::cuda
