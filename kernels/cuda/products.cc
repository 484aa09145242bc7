#include "kernels/cuda/products.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cuda/dequantize.cuh"
#include "kernels/cuda/gemv.cuh"

namespace kvasir::cuda {
namespace {

// Of weights as bf16 at a time: enough for every layer of an 8B model, not for its output head.
constexpr int64_t kDequantizedValues = int64_t{64} << 20;

}  // namespace

Result<std::unique_ptr<CudaWeight>> CudaWeight::Create(DType dtype, const void* data, int64_t n,
                                                       int64_t k, Stream stream) {
  auto weight = std::make_unique<CudaWeight>();
  WeightLayout& layout = weight->layout_ = LayoutFor(dtype, n, k);
  weight->outputs_ = n;
  weight->inputs_ = k;
  weight->bytes_ = layout.bytes();
  std::vector<uint8_t> packed(layout.bytes(), 0);
  const size_t row_bytes = BytesOf(dtype, static_cast<size_t>(k));
  for (size_t row = 0; row < static_cast<size_t>(n); ++row) {
    const PackedRow to = {packed.data() + row * layout.quant_row_bytes(),
                          packed.data() + layout.scales_begin() + row * layout.scale_row_bytes(),
                          packed.data() + layout.supers_begin() + row * layout.super_row_bytes()};
    PackRow(layout, dtype, static_cast<const char*>(data) + row * row_bytes, to);
  }
  KVASIR_ASSIGN_OR_RETURN(weight->data_, AllocateDeviceMemory(packed.size()));
  KVASIR_RETURN_IF_ERROR(CopyToDevice(weight->data_, packed.data(), packed.size(), stream));
  KVASIR_RETURN_IF_ERROR(Synchronize(stream));
  return weight;
}

Status Products::MatMul(const TensorView& x, const CudaWeight& weight, const float* bias,
                        bool accumulate, const TensorView& out) {
  if (x.rows == 0) return Status::Ok();
  if (gemm_ == nullptr || x.rows <= kGemvRows) {
    return MatMulInF32(x, weight, bias, accumulate, out);
  }
  KVASIR_RETURN_IF_ERROR(MatMulInBf16(x, weight, accumulate, out));
  return bias == nullptr ? Status::Ok() : AddBias(stream_, bias, out);
}

Status Products::MatMulInF32(const TensorView& x, const CudaWeight& weight, const float* bias,
                             bool accumulate, const TensorView& out) {
  GemvArgs args = {x, weight.layout(), weight.data(), bias, accumulate, out};
  if (IsWholeQuads(x)) return Gemv(stream_, args);
  const int64_t cols = (x.cols + 3) / 4 * 4;
  KVASIR_ASSIGN_OR_RETURN(const Scratch padded,
                          buffers_->Take(sizeof(float) * static_cast<size_t>(x.rows * cols)));
  KVASIR_RETURN_IF_ERROR(PadRows(stream_, x, padded.As<float>(), cols));
  args.x = F32View(padded.As<float>(), x.rows, cols);
  return Gemv(stream_, args);
}

Status Products::MatMulInBf16(const TensorView& x, const CudaWeight& weight, bool accumulate,
                              const TensorView& out) {
  const WeightLayout& layout = weight.layout();
  const int64_t k = layout.padded_inputs();
  KVASIR_ASSIGN_OR_RETURN(const Scratch rounded,
                          buffers_->Take(static_cast<size_t>(2 * x.rows * k)));
  KVASIR_RETURN_IF_ERROR(RoundToBf16(stream_, x, rounded.As<uint16_t>(), k));
  GemmArgs args;
  args.x = rounded.As<uint16_t>();
  args.k = k;
  args.rows = x.rows;
  args.accumulate = accumulate;
  args.out_stride = out.row_stride;
  if (layout.format == WeightFormat::kBF16) {
    args.weight = static_cast<const uint16_t*>(weight.data());
    args.n = layout.n;
    args.out = out.f32();
    return gemm_->Multiply(stream_, args);
  }
  constexpr int64_t kTogether = 64;  // outputs: each part of `out` begins as well as the whole
  const int64_t fits = kDequantizedValues / k / kTogether * kTogether;
  const int64_t most = std::min(std::max(fits, kTogether), layout.n);
  KVASIR_ASSIGN_OR_RETURN(const Scratch bf16, buffers_->Take(static_cast<size_t>(2 * most * k)));
  for (int64_t first = 0; first < layout.n; first += most) {
    args.n = std::min(most, layout.n - first);
    KVASIR_RETURN_IF_ERROR(
        DequantizeToBf16(stream_, layout, weight.data(), first, args.n, bf16.As<uint16_t>()));
    args.weight = bf16.As<uint16_t>();
    args.out = out.f32() + first;
    KVASIR_RETURN_IF_ERROR(gemm_->Multiply(stream_, args));
  }
  return Status::Ok();
}

}  // namespace kvasir::cuda
