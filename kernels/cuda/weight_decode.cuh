// A lane's weights of one chunk, from packed planes (weight_layout.h) to fp32.
#pragma once

#include "kernels/cuda/platform.cuh"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

// A packed matrix as kernels take it.
struct WeightPlanes {
  Global<const uint8_t> quants = nullptr, scales = nullptr, supers = nullptr;
  int64_t quant_row = 0, scale_row = 0, super_row = 0;  // bytes
  int64_t n = 0, k = 0;
  int chunks = 0;
};

inline WeightPlanes PlanesOf(const WeightLayout& layout, const void* data) {
  const Global<const uint8_t> bytes = static_cast<const uint8_t*>(data);
  WeightPlanes planes;
  planes.quants = bytes;
  planes.scales = bytes + static_cast<int64_t>(layout.scales_begin());
  planes.supers = bytes + static_cast<int64_t>(layout.supers_begin());
  planes.quant_row = static_cast<int64_t>(layout.quant_row_bytes());
  planes.scale_row = static_cast<int64_t>(layout.scale_row_bytes());
  planes.super_row = static_cast<int64_t>(layout.super_row_bytes());
  planes.n = layout.n;
  planes.k = layout.k;
  planes.chunks = static_cast<int>(layout.chunks);
  return planes;
}

// kBytes bytes in the widest loads that they allow.
template <int kBytes>
__device__ __forceinline__ void LoadBytes(Global<const uint8_t> from,
                                          uint32_t (&out)[(kBytes + 3) / 4]) {
  if constexpr (kBytes % 16 == 0) {
#pragma unroll
    for (int i = 0; i < kBytes / 16; ++i) {
      const Words4 w = LoadOnce<Words4>(from + 16 * i);
      out[4 * i] = w.x, out[4 * i + 1] = w.y, out[4 * i + 2] = w.z, out[4 * i + 3] = w.w;
    }
  } else if constexpr (kBytes == 8) {
    const Words2 w = LoadOnce<Words2>(from);
    out[0] = w.x, out[1] = w.y;
  } else if constexpr (kBytes == 4) {
    out[0] = LoadOnce<uint32_t>(from);
  } else {
    static_assert(kBytes == 2);
    out[0] = LoadOnce<uint16_t>(from);
  }
}

template <WeightFormat kFormat, int kSlices>
struct LaneWeights {
  static constexpr int kBytes = LaneBytes(kFormat, kSlices);
  static constexpr int kScaleBytes = ScaleBytes(kFormat) * kSlices;
  static constexpr int kSupers = kFormat == WeightFormat::kQ4_K ? (kSlices + 1) / 2 : 0;

  uint32_t quants[(kBytes + 3) / 4];
  uint32_t scales[kScaleBytes == 0 ? 1 : (kScaleBytes + 3) / 4];
  uint32_t supers[kSupers == 0 ? 1 : kSupers];

  __device__ __forceinline__ void Load(const WeightPlanes& p, int64_t row, int chunk, int lane) {
    LoadBytes<kBytes>(p.quants + (row * p.quant_row + (int64_t{chunk} * 32 + lane) * kBytes),
                      quants);
    if constexpr (kScaleBytes > 0) {
      constexpr int kShared = ScaleLanes(kFormat);
      const int64_t entry = int64_t{chunk} * (32 / kShared) + lane / kShared;
      LoadBytes<kScaleBytes>(p.scales + (row * p.scale_row + entry * kScaleBytes), scales);
    }
    if constexpr (kSupers > 0) {
      const int64_t super = int64_t{chunk} * kSlices / 2;
      LoadBytes<4 * kSupers>(p.supers + (row * p.super_row + 4 * super), supers);
    }
  }

  // A slice's four weights are quants * scale + minimum; the minimum is 0 where the format has
  // none.
  static constexpr bool kHasMinimum =
      kFormat == WeightFormat::kQ4_1 || kFormat == WeightFormat::kQ4_K;
  struct Slice {
    float quants[4], scale, minimum;
  };
  __device__ __forceinline__ Slice Open(int slice) const {
    Slice out;
#pragma unroll
    for (int e = 0; e < 4; ++e) out.quants[e] = QuantOf(4 * slice + e);
    ScaleOf(slice, &out.scale, &out.minimum);
    return out;
  }

  // The four weights of a slice.
  __device__ __forceinline__ void Decode(int slice, float (&w)[4]) const {
    if constexpr (kFormat == WeightFormat::kF32) {
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = BitsToFloat(quants[4 * slice + e]);
    } else if constexpr (IsDense(kFormat)) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const uint32_t word = quants[2 * slice + e / 2];
        const uint32_t bits = e % 2 == 0 ? word & 0xFFFFu : word >> 16;
        w[e] = kFormat == WeightFormat::kBF16 ? BitsToFloat(bits << 16)
                                              : HalfToFloat(static_cast<uint16_t>(bits));
      }
    } else {
      float scale, minimum;
      ScaleOf(slice, &scale, &minimum);
#pragma unroll
      for (int e = 0; e < 4; ++e) w[e] = Fma(QuantOf(4 * slice + e), scale, minimum);
    }
  }

 private:
  __device__ __forceinline__ float QuantOf(int index) const {
    if constexpr (BitsOf(kFormat) == 4) {
      // Four bits at place p of the mantissa of 2^(23 - p) are that number and themselves: a half
      // word is moved once for four of them, not each to the front.
      const uint32_t half = index % 8 < 4 ? quants[index / 8] : quants[index / 8] >> 16;
      const int place = 4 * (index % 4);
      const float base = static_cast<float>(1u << (23 - place));
      const float offset = kFormat == WeightFormat::kQ4_0 ? 8.0f : 0.0f;
      const uint32_t exponent = static_cast<uint32_t>(150 - place) << 23;
      return BitsToFloat((half & (15u << place)) | exponent) - (base + offset);
    } else {
      // Signed, in the last bits of 2^23: + 128 by turning the sign bit over.
      const uint32_t byte = (quants[index / 4] >> (8 * (index % 4)) & 255u) ^ 128u;
      return BitsToFloat(byte | 0x4B000000u) - 8388736.0f;
    }
  }

  __device__ __forceinline__ void ScaleOf(int slice, float* scale, float* minimum) const {
    if constexpr (kFormat == WeightFormat::kBytes) {
      *scale = BitsToFloat(scales[2 * slice]);
      *minimum = BitsToFloat(scales[2 * slice + 1]);
    } else if constexpr (kFormat == WeightFormat::kQ4_1) {
      *scale = HalfToFloat(static_cast<uint16_t>(scales[slice]));
      *minimum = HalfToFloat(static_cast<uint16_t>(scales[slice] >> 16));
    } else {
      const uint32_t bits = scales[slice / 2] >> (16 * (slice % 2)) & 0xFFFFu;
      if constexpr (kFormat == WeightFormat::kQ4_K) {
        const uint32_t super = supers[slice / 2];
        *scale = HalfToFloat(static_cast<uint16_t>(super)) * static_cast<float>(bits & 255u);
        *minimum = -HalfToFloat(static_cast<uint16_t>(super >> 16)) * static_cast<float>(bits >> 8);
      } else {
        *scale = HalfToFloat(static_cast<uint16_t>(bits));
        *minimum = 0.0f;
      }
    }
  }
};

}  // namespace kvasir::cuda
