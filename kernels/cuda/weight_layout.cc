#include "kernels/cuda/weight_layout.h"

#include <array>
#include <cstring>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir::cuda {
namespace {

// Quants of a row and the scale, minimum of every 16 inputs: what a file's types have in common.
struct Quants {
  std::vector<uint8_t> values;        // [K]; of kBytes, signed
  std::vector<float> scale, minimum;  // [K / 16], kBytes alone
};

uint16_t ReadU16(const uint8_t* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}
float ReadF16(const uint8_t* bytes) { return F16ToF32(ReadU16(bytes)); }

// The two 6-bit numbers of group `group` of a Q4_K or Q5_K super-block.
std::array<uint8_t, 2> GroupScales(const uint8_t* packed, int group) {
  if (group < 4) {
    return {static_cast<uint8_t>(packed[group] & 63), static_cast<uint8_t>(packed[group + 4] & 63)};
  }
  return {static_cast<uint8_t>((packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4)),
          static_cast<uint8_t>((packed[group + 4] >> 4) | (packed[group] >> 6 << 4))};
}

// Element j of a block of 32 nibbles: 0..15 in the low halves, 16..31 in the high ones.
uint8_t Nibble(const uint8_t* q, int j) {
  return j < 16 ? q[j] & 15 : static_cast<uint8_t>(q[j - 16] >> 4);
}

void ReadBlock32(DType dtype, const uint8_t* block, size_t at, Quants* out) {
  const bool minimum = dtype == DType::kQ4_1 || dtype == DType::kQ5_1;
  const bool five = dtype == DType::kQ5_0 || dtype == DType::kQ5_1;
  const uint8_t* const high = block + (minimum ? 4 : 2);
  const uint8_t* const q = high + (five ? 4 : 0);
  for (int j = 0; j < 32; ++j) {
    uint8_t value = dtype == DType::kQ8_0 ? q[j] : Nibble(q, j);
    if (five) value = static_cast<uint8_t>(value | (high[j / 8] >> (j % 8) & 1) << 4);
    if (dtype == DType::kQ5_0) value = static_cast<uint8_t>(value - 16);
    out->values[at + static_cast<size_t>(j)] = value;
  }
  for (size_t i = at / 16; i < at / 16 + 2; ++i) {
    out->scale[i] = ReadF16(block);
    out->minimum[i] = minimum ? ReadF16(block + 2) : 0.0f;
  }
}

void ReadK45(DType dtype, const uint8_t* block, size_t at, Quants* out) {
  const bool five = dtype == DType::kQ5_K;
  const uint8_t* const high = block + 16;
  const uint8_t* const nibbles = block + (five ? 48 : 16);
  for (int group = 0; group < 8; ++group) {
    const auto [scale, minimum] = GroupScales(block + 4, group);
    for (int j = 0; j < 32; ++j) {
      int value = nibbles[32 * (group / 2) + j] >> (4 * (group % 2)) & 15;
      if (five) value |= (high[j] >> group & 1) << 4;
      out->values[at + static_cast<size_t>(32 * group + j)] = static_cast<uint8_t>(value);
    }
    for (size_t i = 0; i < 2; ++i) {
      const size_t to = at / 16 + static_cast<size_t>(2 * group) + i;
      out->scale[to] = ReadF16(block) * static_cast<float>(scale);
      out->minimum[to] = -ReadF16(block + 2) * static_cast<float>(minimum);
    }
  }
}

void ReadK6(const uint8_t* block, size_t at, Quants* out) {
  const float scale = ReadF16(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, run = i / 32 % 4, j = i % 32;
    const int low = block[64 * half + 32 * (run % 2) + j] >> (4 * (run / 2)) & 15;
    const int high = block[128 + 32 * half + j] >> (2 * run) & 3;
    out->values[at + static_cast<size_t>(i)] = static_cast<uint8_t>((low | high << 4) - 32);
  }
  for (int i = 0; i < 16; ++i) {
    const size_t to = at / 16 + static_cast<size_t>(i);
    out->scale[to] = scale * static_cast<float>(static_cast<int8_t>(block[192 + i]));
    out->minimum[to] = 0.0f;
  }
}

Quants ReadRow(DType dtype, const uint8_t* row, int64_t k) {
  const auto count = static_cast<size_t>(k);
  Quants out{std::vector<uint8_t>(count), std::vector<float>(count / 16),
             std::vector<float>(count / 16)};
  const DTypeTraits& traits = TraitsOf(dtype);
  for (size_t at = 0; at < count; at += static_cast<size_t>(traits.block_elements)) {
    if (dtype == DType::kQ6_K) {
      ReadK6(row, at, &out);
    } else if (traits.block_elements == 256) {
      ReadK45(dtype, row, at, &out);
    } else {
      ReadBlock32(dtype, row, at, &out);
    }
    row += traits.block_bytes;
  }
  return out;
}

// The entry of `scales` for the inputs from `input` on.
void WriteScale(const WeightLayout& layout, DType dtype, const uint8_t* row, const Quants& quants,
                int64_t input, uint8_t* entry) {
  const DTypeTraits& traits = TraitsOf(dtype);
  const uint8_t* const block = row + input / traits.block_elements * traits.block_bytes;
  const auto group = static_cast<size_t>(input / 16);
  if (layout.format == WeightFormat::kBytes) {
    std::memcpy(entry, &quants.scale[group], 4);
    std::memcpy(entry + 4, &quants.minimum[group], 4);
  } else if (layout.format == WeightFormat::kQ4_K) {
    const auto both = GroupScales(block + 4, static_cast<int>(input % 256 / 32));
    std::memcpy(entry, both.data(), 2);
  } else {
    std::memcpy(entry, block, static_cast<size_t>(ScaleBytes(layout.format)));
  }
}

// Quants of `slice` of a lane, from input `input` on, into the lane's bytes.
void WriteSlice(const WeightLayout& layout, const Quants& quants, int64_t input, int slice,
                uint8_t* lane) {
  for (int e = 0; e < 4 && input + e < layout.k; ++e) {
    const uint8_t value = quants.values[static_cast<size_t>(input + e)];
    const int index = 4 * slice + e;
    if (BitsOf(layout.format) == 8) {
      lane[index] = value;
    } else {
      lane[index / 2] = static_cast<uint8_t>(lane[index / 2] | value << (4 * (index % 2)));
    }
  }
}

WeightFormat FormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return WeightFormat::kF32;
    case DType::kF16:
      return WeightFormat::kF16;
    case DType::kBF16:
      return WeightFormat::kBF16;
    case DType::kQ4_0:
      return WeightFormat::kQ4_0;
    case DType::kQ4_1:
      return WeightFormat::kQ4_1;
    case DType::kQ4_K:
      return WeightFormat::kQ4_K;
    case DType::kQ8_0:
      return WeightFormat::kQ8_0;
    default:
      KVASIR_CHECK(dtype != DType::kI8 && dtype != DType::kI4);
      return WeightFormat::kBytes;
  }
}

}  // namespace

WeightLayout LayoutFor(DType dtype, int64_t n, int64_t k) {
  WeightLayout layout;
  layout.format = FormatOf(dtype);
  layout.n = n;
  layout.k = k;
  // Wide unless that pads by more than an eighth.
  const int wide = WideSlices(layout.format);
  const int64_t wide_inputs = int64_t{128} * wide;
  const int64_t padded = (k + wide_inputs - 1) / wide_inputs * wide_inputs;
  layout.slices = (padded - k) * 8 <= k ? wide : 1;
  layout.chunks = (k + 128 * layout.slices - 1) / (128 * layout.slices);
  return layout;
}

void PackRow(const WeightLayout& layout, DType dtype, const void* row, const PackedRow& out) {
  if (IsDense(layout.format)) {
    std::memcpy(out.quants, row, BytesOf(dtype, static_cast<size_t>(layout.k)));
    return;
  }
  const auto* const bytes = static_cast<const uint8_t*>(row);
  const Quants quants = ReadRow(dtype, bytes, layout.k);
  const int lane_bytes = LaneBytes(layout.format, layout.slices);
  const int shared = ScaleLanes(layout.format), scale_bytes = ScaleBytes(layout.format);
  for (int64_t chunk = 0; chunk < layout.chunks; ++chunk) {
    for (int lane = 0; lane < 32; ++lane) {
      for (int slice = 0; slice < layout.slices; ++slice) {
        const int64_t input =
            chunk * 128 * layout.slices + FirstInput(layout.format, layout.slices, lane, slice);
        if (input >= layout.k) continue;
        WriteSlice(layout, quants, input, slice, out.quants + (chunk * 32 + lane) * lane_bytes);
        if (lane % shared != 0) continue;
        const int64_t entry = (chunk * (32 / shared) + lane / shared) * layout.slices + slice;
        WriteScale(layout, dtype, bytes, quants, input, out.scales + entry * scale_bytes);
      }
    }
  }
  if (layout.format != WeightFormat::kQ4_K) return;
  for (int64_t block = 0; block < layout.k / 256; ++block) {
    std::memcpy(out.supers + 4 * block, bytes + block * TraitsOf(dtype).block_bytes, 4);
  }
}

}  // namespace kvasir::cuda
