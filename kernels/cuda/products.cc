#include "kernels/cuda/products.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/cuda/activate.cuh"
#include "kernels/cuda/dequantize.cuh"
#include "kernels/cuda/norm.cuh"

namespace kvasir::cuda {
namespace {

// Of weights as bf16 at a time: enough for every layer of an 8B model, not for its output head.
constexpr int64_t kDequantizedValues = int64_t{64} << 20;

}  // namespace

int64_t OutputsAtOnce(const WeightLayout& layout) {
  if (layout.format == WeightFormat::kBF16) return layout.n;
  constexpr int64_t kTogether = 64;  // each part of the output begins as well as the whole
  const int64_t fits = kDequantizedValues / layout.padded_inputs() / kTogether * kTogether;
  return std::min(std::max(fits, kTogether), layout.n);
}

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
  const GemvTarget target = {&weight.layout(), weight.data(), bias, out};
  if (IsInF32(x.rows)) return MatMulInF32(x, {&target, 1}, accumulate);
  const int64_t k = weight.layout().padded_inputs();
  KVASIR_ASSIGN_OR_RETURN(const Scratch rounded, TakeBf16(x.rows, k));
  KVASIR_RETURN_IF_ERROR(RoundToBf16(stream_, x, rounded.As<uint16_t>(), k));
  return MatMulInBf16(rounded.As<uint16_t>(), x.rows, target, accumulate);
}

Status Products::MatMul(const NormedRows& in, std::span<const Projection> projections) {
  if (in.x.rows == 0) return Status::Ok();
  std::vector<GemvTarget> targets;
  for (const Projection& projection : projections) {
    const auto& weight = static_cast<const CudaWeight&>(*projection.weight);
    targets.push_back({&weight.layout(), weight.data(), projection.bias, projection.out});
  }
  if (!IsInF32(in.x.rows)) return NormedInBf16(in, targets);
  if (FitsNormedGemv(in.x)) {
    return NormedGemv(stream_, in.x, {in.kind, in.weight, in.bias, in.eps}, targets);
  }
  KVASIR_RETURN_IF_ERROR(
      Norm(stream_, {in.kind, in.x, in.room, in.x.cols, in.weight, in.bias, in.eps}));
  return MatMulInF32(in.room, targets, false);
}

Status Products::FeedForward(const NormedRows& in, const FeedForwardWeights& weights,
                             bool accumulate, const TensorView& gate, const TensorView& up,
                             const TensorView& out) {
  if (in.x.rows == 0) return Status::Ok();
  const auto& down = static_cast<const CudaWeight&>(*weights.down);
  if (IsInF32(in.x.rows)) {
    KVASIR_RETURN_IF_ERROR(GateInF32(in, weights, gate, up));
    return MatMul(gate, down, nullptr, accumulate, out);
  }
  const Projection projections[] = {{weights.gate, nullptr, gate}, {weights.up, nullptr, up}};
  KVASIR_RETURN_IF_ERROR(MatMul(in, projections));
  const int64_t k = down.layout().padded_inputs();
  KVASIR_ASSIGN_OR_RETURN(const Scratch rounded, TakeBf16(gate.rows, k));
  KVASIR_RETURN_IF_ERROR(
      ActivateToBf16(stream_, weights.activation, gate, up, rounded.As<uint16_t>(), k));
  return MatMulInBf16(rounded.As<uint16_t>(), gate.rows,
                      {&down.layout(), down.data(), nullptr, out}, accumulate);
}

// gate = activation(h gate^T) * h up^T.
Status Products::GateInF32(const NormedRows& in, const FeedForwardWeights& weights,
                           const TensorView& gate, const TensorView& up) {
  const auto& of_gate = static_cast<const CudaWeight&>(*weights.gate);
  const auto& of_up = static_cast<const CudaWeight&>(*weights.up);
  if (FitsNormedGemv(in.x) && FitsGatedGemv(of_gate.layout(), of_up.layout())) {
    return GatedGemv(stream_, in.x, {in.kind, in.weight, in.bias, in.eps},
                     {&of_gate.layout(), of_gate.data(), of_up.data(), weights.activation, gate});
  }
  const Projection projections[] = {{weights.gate, nullptr, gate}, {weights.up, nullptr, up}};
  KVASIR_RETURN_IF_ERROR(MatMul(in, projections));
  return Activate(stream_, weights.activation, gate, up, gate);
}

Status Products::MatMulInF32(const TensorView& x, std::span<const GemvTarget> targets,
                             bool accumulate) {
  if (IsWholeQuads(x)) return Gemv(stream_, x, targets, accumulate);
  const int64_t cols = (x.cols + 3) / 4 * 4;
  KVASIR_ASSIGN_OR_RETURN(const Scratch padded,
                          buffers_->Take(sizeof(float) * static_cast<size_t>(x.rows * cols)));
  KVASIR_RETURN_IF_ERROR(PadRows(stream_, x, padded.As<float>(), cols));
  return Gemv(stream_, F32View(padded.As<float>(), x.rows, cols), targets, accumulate);
}

// Normed rows are rounded once for all targets that are padded alike.
Status Products::NormedInBf16(const NormedRows& in, std::span<const GemvTarget> targets) {
  const NormArgs norm = {in.kind, in.x, {}, in.x.cols, in.weight, in.bias, in.eps};
  Scratch rounded;
  int64_t k = 0;
  for (const GemvTarget& target : targets) {
    if (target.layout->padded_inputs() != k) {
      k = target.layout->padded_inputs();
      rounded = Scratch();  // given back before the next is taken
      KVASIR_ASSIGN_OR_RETURN(rounded, TakeBf16(in.x.rows, k));
      KVASIR_RETURN_IF_ERROR(NormToBf16(stream_, norm, rounded.As<uint16_t>(), k));
    }
    KVASIR_RETURN_IF_ERROR(MatMulInBf16(rounded.As<uint16_t>(), in.x.rows, target, false));
  }
  return Status::Ok();
}

Status Products::MatMulInBf16(const uint16_t* x, int64_t rows, const GemvTarget& target,
                              bool accumulate) {
  KVASIR_RETURN_IF_ERROR(MultiplyInBf16(x, rows, target, accumulate));
  return target.bias == nullptr ? Status::Ok() : AddBias(stream_, target.bias, target.out);
}

Status Products::MultiplyInBf16(const uint16_t* x, int64_t rows, const GemvTarget& target,
                                bool accumulate) {
  const WeightLayout& layout = *target.layout;
  const int64_t k = layout.padded_inputs();
  GemmArgs args;
  args.x = x;
  args.k = k;
  args.rows = rows;
  args.accumulate = accumulate;
  args.out_stride = target.out.row_stride;
  return ForEachPart(layout, target.weight, [&](const uint16_t* part, int64_t first, int64_t n) {
    args.weight = part;
    args.n = n;
    args.out = target.out.f32() + first;
    return gemm_->Multiply(stream_, args);
  });
}

template <typename Use>
Status Products::ForEachPart(const WeightLayout& layout, const void* weight, const Use& use) {
  if (layout.format == WeightFormat::kBF16) {
    return use(static_cast<const uint16_t*>(weight), 0, layout.n);
  }
  const int64_t most = OutputsAtOnce(layout);
  KVASIR_ASSIGN_OR_RETURN(const Scratch bf16, TakeBf16(most, layout.padded_inputs()));
  for (int64_t first = 0; first < layout.n; first += most) {
    const int64_t n = std::min(most, layout.n - first);
    KVASIR_RETURN_IF_ERROR(
        DequantizeToBf16(stream_, layout, weight, first, n, bf16.As<uint16_t>()));
    KVASIR_RETURN_IF_ERROR(use(bf16.As<uint16_t>(), first, n));
  }
  return Status::Ok();
}

Result<Scratch> Products::TakeBf16(int64_t rows, int64_t cols) {
  return buffers_->Take(sizeof(uint16_t) * static_cast<size_t>(rows * cols));
}

// Weights of one shape and kind are cut and multiplied alike: the first one stands for all.
Status Products::Prepare(std::span<const PackedWeight* const> weights, int64_t most_rows) {
  if (IsInF32(most_rows)) return Status::Ok();
  std::set<std::tuple<bool, int64_t, int64_t>> seen;
  for (const PackedWeight* packed : weights) {
    const auto& weight = static_cast<const CudaWeight&>(*packed);
    const WeightLayout& layout = weight.layout();
    const int64_t k = layout.padded_inputs();
    if (!seen.emplace(layout.format == WeightFormat::kBF16, layout.n, k).second) continue;
    // Held, as in a product, beside the memory of what is dequantised.
    KVASIR_ASSIGN_OR_RETURN(const std::vector<Scratch> inputs, TakeInputs(k, most_rows));
    const auto prepare = [&](const uint16_t* part, int64_t, int64_t n) {
      return gemm_->Prepare(stream_, part, n, k, most_rows);
    };
    KVASIR_RETURN_IF_ERROR(ForEachPart(layout, weight.data(), prepare));
  }
  return Synchronize(stream_);
}

// One of every size that products of up to so many rows take.
Result<std::vector<Scratch>> Products::TakeInputs(int64_t k, int64_t most_rows) {
  std::vector<Scratch> inputs;
  for (int64_t rows = kGemvRows + 1;; rows = std::min(2 * rows, most_rows)) {
    KVASIR_ASSIGN_OR_RETURN(Scratch input, TakeBf16(rows, k));
    inputs.push_back(std::move(input));
    if (rows == most_rows) return inputs;
  }
}

}  // namespace kvasir::cuda
