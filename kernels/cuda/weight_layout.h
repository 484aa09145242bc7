// How weights lie on the card: quants and scales in planes of their own, rearranged once at load so
// that a warp's loads are whole cache lines. Plain host code.
//
// A row of K inputs is cut into *chunks*; in each, every lane of a warp owns `slices` times four
// inputs, whose quants are one load of up to 16 bytes. K is padded with zero quants to whole
// chunks.
//   wide:   16 bytes a lane; chunks of 128 (fp32), 256 (16 bits), 512 (8 bits), 1,024 inputs (4
//   bits) narrow: one slice a lane, chunks of 128 inputs: less padding where K is small
// Dense types stay in row order: slice s of lane l holds inputs 4 * (slices * l + s) of its chunk,
// so that a library's matrix product reads them as they are. Quantised ones interleave: inputs 128
// * s + 4 * l, so that a warp's loads of the activations are whole lines too.
//
// Planes of one matrix, one behind the other in one buffer:
//   quants [N][chunks][32 lanes][bytes]
//   scales [N][chunks][lanes / lanes that share one][slices], by format:
//     kQ4_0, kQ8_0  fp16 scale a 32 inputs; value = scale * (q - 8), scale * q
//     kQ4_1         fp16 scale and minimum a 32 inputs; value = scale * q + minimum
//     kQ4_K         two bytes (s, m) a 32 inputs, and fp16 (d, e) a 256 inputs in `supers`;
//                   value = (d * s) * q - (e * m)
//     kBytes        fp32 scale and minimum a 16 inputs; value = scale * q + minimum: Q5_0, Q5_1,
//     Q5_K
//                   and Q6_K
//   supers [N][256-input blocks]
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/dtype.h"

namespace kvasir::cuda {

enum class WeightFormat : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ4_K, kQ8_0, kBytes };

constexpr int BitsOf(WeightFormat format) {
  if (format == WeightFormat::kF32) return 32;
  if (format == WeightFormat::kF16 || format == WeightFormat::kBF16) return 16;
  return format == WeightFormat::kQ8_0 || format == WeightFormat::kBytes ? 8 : 4;
}
constexpr bool IsDense(WeightFormat format) { return BitsOf(format) >= 16; }
// Slices of a lane's 16-byte load.
constexpr int WideSlices(WeightFormat format) { return 32 / BitsOf(format); }
// Bytes of quants a lane holds in a chunk.
constexpr int LaneBytes(WeightFormat format, int slices) { return slices * BitsOf(format) / 2; }
// Bytes of an entry of `scales`; 0 = none.
constexpr int ScaleBytes(WeightFormat format) {
  if (IsDense(format)) return 0;
  if (format == WeightFormat::kBytes) return 8;
  return format == WeightFormat::kQ4_1 ? 4 : 2;
}
// Lanes of a slice that share an entry.
constexpr int ScaleLanes(WeightFormat format) { return format == WeightFormat::kBytes ? 4 : 8; }
// The first input of a lane's slice, counted from its chunk.
constexpr int FirstInput(WeightFormat format, int slices, int lane, int slice) {
  return IsDense(format) ? 4 * (slices * lane + slice) : 128 * slice + 4 * lane;
}

struct WeightLayout {
  WeightFormat format = WeightFormat::kF32;
  int slices = 1;
  int64_t n = 0, k = 0;
  int64_t chunks = 0;  // a row

  int64_t padded_inputs() const { return chunks * 128 * slices; }
  size_t quant_row_bytes() const {
    return static_cast<size_t>(chunks) * 32 * static_cast<size_t>(LaneBytes(format, slices));
  }
  size_t scale_row_bytes() const {
    return static_cast<size_t>(chunks) * static_cast<size_t>(32 / ScaleLanes(format) * slices) *
           static_cast<size_t>(ScaleBytes(format));
  }
  // Each row's supers are a whole number of 16-byte loads.
  size_t super_row_bytes() const {
    if (format != WeightFormat::kQ4_K) return 0;
    return (static_cast<size_t>(padded_inputs()) / 256 + 3) / 4 * 16;
  }
  size_t scales_begin() const { return Aligned(static_cast<size_t>(n) * quant_row_bytes()); }
  size_t supers_begin() const {
    return Aligned(scales_begin() + static_cast<size_t>(n) * scale_row_bytes());
  }
  size_t bytes() const {
    return Aligned(supers_begin() + static_cast<size_t>(n) * super_row_bytes());
  }

 private:
  static size_t Aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }
};

// kI8 and kI4 have none: asserted. n, k > 0, k a multiple of the type's block.
WeightLayout LayoutFor(DType dtype, int64_t n, int64_t k);

// Where PackRow writes one row.
struct PackedRow {
  uint8_t* quants = nullptr;
  uint8_t* scales = nullptr;
  uint8_t* supers = nullptr;
};
// One row of a model file's matrix; the planes start as zeros.
void PackRow(const WeightLayout& layout, DType dtype, const void* row, const PackedRow& out);

}  // namespace kvasir::cuda
