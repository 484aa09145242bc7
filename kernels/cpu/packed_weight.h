// How weight matrices lie in memory for the CPU's products.
//
// A panel holds 16 consecutive outputs for all K inputs, interleaved so that one 512-bit register
// lane is one output; panels lie one after the other. Missing outputs of the last panel are zero.
// Quantised panels are a row of units of 32 or 256 inputs: scales first, then quants.
//   4-bit quants: 64 bytes hold 8 inputs; 32-bit lane o holds output o, input j in bits 4j..4j+3.
//   8-bit quants: 128 bytes hold 8 inputs, first the even ones: byte b of lane o of the first 64 is
//   input 2b of output o, of the other 64 input 2b + 1. Halves of 4-bit words lie just so.
//   plain types: [K][16].
// Every kind holds the file's own value: fp32(scale * q + minimum), rounded once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

inline constexpr int kPanelOutputs = 16;

enum class PackedKind : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4,           // Q4_0: unit 32 = fp16 d[16], quants 4 x 64; w = d (q - 8)
  kQ4Min,        // Q4_1: unit 32 = fp16 d[16], fp16 m[16], quants 4 x 64; w = d q + m
  kQ4Super,      // Q4_K: unit 256 = fp16 d[16], fp16 dmin[16], 8 x (u8 scale[16], u8 min[16]),
                 //       quants 32 x 64; w = (d scale) q - (dmin min)
  kQ8,           // Q8_0, Q5_0: unit 32 = fp16 d[16], u8 quants 4 x 128; w = d (q - 128)
  kQ8Min,        // Q5_1: unit 32 = fp16 d[16], fp16 m[16], u8 quants 4 x 128; w = d q + m
  kQ8Super,      // Q5_K: as kQ4Super with u8 quants 32 x 128
  kQ8SuperFine,  // Q6_K: unit 256 = fp16 d[16], 32 bytes unused, 16 x s8 scale[16],
                 //       u8 quants 32 x 128; w = (d scale) (q - 32)
};

struct PackedTraits {
  int32_t unit_inputs;
  int32_t unit_bytes;    // of a panel
  int32_t quant_bits;    // 4, 8, 16 or 32
  int32_t quant_offset;  // of the quants in a unit
};

constexpr PackedTraits TraitsOf(PackedKind kind) {
  switch (kind) {
    case PackedKind::kF32:
      return {1, 64, 32, 0};
    case PackedKind::kF16:
      return {1, 32, 16, 0};
    case PackedKind::kBF16:
      return {1, 32, 16, 0};
    case PackedKind::kQ4:
      return {32, 32 + 256, 4, 32};
    case PackedKind::kQ4Min:
      return {32, 64 + 256, 4, 64};
    case PackedKind::kQ4Super:
      return {256, 64 + 256 + 2048, 4, 320};
    case PackedKind::kQ8:
      return {32, 32 + 512, 8, 32};
    case PackedKind::kQ8Min:
      return {32, 64 + 512, 8, 64};
    case PackedKind::kQ8Super:
      return {256, 64 + 256 + 4096, 8, 320};
    case PackedKind::kQ8SuperFine:
      return {256, 64 + 256 + 4096, 8, 320};
  }
  return {1, 0, 0, 0};
}

// A non-owning window on a packed matrix; plain data, so that files of any instruction set may
// pass it about.
struct PackedView {
  const uint8_t* data = nullptr;  // 64-byte aligned
  PackedKind kind = PackedKind::kF32;
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t panel_bytes = 0;

  int64_t panels() const { return (outputs + kPanelOutputs - 1) / kPanelOutputs; }
  const uint8_t* panel(int64_t index) const { return data + index * panel_bytes; }
};

}  // namespace kvasir
