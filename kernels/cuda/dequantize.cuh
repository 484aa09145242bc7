// What products want of their operands: packed weights and fp32 activations as bf16 for the
// library, activations in whole quads for GEMV.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

// out [rows][layout.padded_inputs()] bf16 = rows [first_row, first_row + rows) of the matrix.
Status DequantizeToBf16(Stream stream, const WeightLayout& layout, const void* weight,
                        int64_t first_row, int64_t rows, uint16_t* out);
// out [T][stride] bf16 = x [T][K]; zeros behind K. stride is a multiple of 4.
Status RoundToBf16(Stream stream, const TensorView& x, uint16_t* out, int64_t stride);
// out [T][stride] = x [T][K]; zeros behind K. stride is a multiple of 4.
Status PadRows(Stream stream, const TensorView& x, float* out, int64_t stride);
// out [T][N] += bias [N].
Status AddBias(Stream stream, const float* bias, const TensorView& out);

}  // namespace kvasir::cuda
