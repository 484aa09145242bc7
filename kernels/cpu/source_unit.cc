#include "kernels/cpu/source_unit.h"

#include <cstring>

#include "kernels/core/status.h"

namespace kvasir {
namespace {

uint16_t LoadU16(const uint8_t* bytes) { return static_cast<uint16_t>(bytes[0] | bytes[1] << 8); }

uint32_t LoadU32(const uint8_t* bytes) {
  return LoadU16(bytes) | static_cast<uint32_t>(LoadU16(bytes + 2)) << 16;
}

// Low nibbles are elements 0..count-1, high nibbles the next `count`.
void ReadNibbles(const uint8_t* source, int count, uint8_t* quant) {
  for (int i = 0; i < count; ++i) {
    quant[i] = source[i] & 15;
    quant[count + i] = source[i] >> 4;
  }
}

void ReadQ4_0(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  ReadNibbles(source + 2, 16, unit->quant);
}

void ReadQ4_1(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  unit->minimum = LoadU16(source + 2);
  ReadNibbles(source + 4, 16, unit->quant);
}

// `source`: 32 fifth bits, then 16 bytes of nibbles.
void ReadFiveBits(const uint8_t* source, int offset, uint8_t* quant) {
  const uint32_t fifth = LoadU32(source);
  ReadNibbles(source + 4, 16, quant);
  for (int i = 0; i < 32; ++i) {
    quant[i] = static_cast<uint8_t>((quant[i] | (fifth >> i & 1) << 4) - offset);
  }
}

void ReadQ5_0(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  ReadFiveBits(source + 2, 16 - 128, unit->quant);
}

void ReadQ5_1(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  unit->minimum = LoadU16(source + 2);
  ReadFiveBits(source + 4, 0, unit->quant);
}

void ReadQ8_0(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  for (int i = 0; i < 32; ++i) unit->quant[i] = source[2 + i] ^ 128;
}

// 8 scales and 8 minima of 6 bits in 12 bytes: the first four of each lie whole in bytes 0-7, the
// last four share bytes 8-11 (low bits) and the top bits of bytes 0-7.
void ReadSixBitScales(const uint8_t* source, SourceUnit* unit) {
  for (int i = 0; i < 4; ++i) {
    unit->sub_scale[i] = source[i] & 63;
    unit->sub_minimum[i] = source[i + 4] & 63;
    unit->sub_scale[i + 4] = static_cast<uint8_t>((source[i + 8] & 15) | source[i] >> 6 << 4);
    unit->sub_minimum[i + 4] = static_cast<uint8_t>(source[i + 8] >> 4 | source[i + 4] >> 6 << 4);
  }
}

void ReadQ4_K(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  unit->minimum = LoadU16(source + 2);
  ReadSixBitScales(source + 4, unit);
  for (int part = 0; part < 4; ++part) {
    ReadNibbles(source + 16 + 32 * part, 32, unit->quant + 64 * part);
  }
}

void ReadQ5_K(const uint8_t* source, SourceUnit* unit) {
  unit->scale = LoadU16(source);
  unit->minimum = LoadU16(source + 2);
  ReadSixBitScales(source + 4, unit);
  const uint8_t* const fifth = source + 16;
  for (int part = 0; part < 4; ++part) {
    ReadNibbles(source + 48 + 32 * part, 32, unit->quant + 64 * part);
  }
  for (int i = 0; i < 256; ++i) {
    unit->quant[i] = static_cast<uint8_t>(unit->quant[i] | (fifth[i % 32] >> (i / 32) & 1) << 4);
  }
}

void ReadQ6_K(const uint8_t* source, SourceUnit* unit) {
  for (int half = 0; half < 2; ++half) {
    const uint8_t* const low = source + 64 * half;
    const uint8_t* const high = source + 128 + 32 * half;
    uint8_t* const quant = unit->quant + 128 * half;
    ReadNibbles(low, 64, quant);
    for (int i = 0; i < 128; ++i) {
      const int top = high[i % 32] >> (2 * (i / 32)) & 3;
      quant[i] = static_cast<uint8_t>(quant[i] | top << 4);
    }
  }
  std::memcpy(unit->sub_scale, source + 192, 16);
  unit->scale = LoadU16(source + 208);
}

}  // namespace

PackedKind PackedKindOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return PackedKind::kQ4;
    case DType::kQ4_1:
      return PackedKind::kQ4Min;
    case DType::kQ4_K:
      return PackedKind::kQ4Super;
    case DType::kQ5_0:
    case DType::kQ8_0:
      return PackedKind::kQ8;
    case DType::kQ5_1:
      return PackedKind::kQ8Min;
    case DType::kQ5_K:
      return PackedKind::kQ8Super;
    case DType::kQ6_K:
      return PackedKind::kQ8SuperFine;
    case DType::kF16:
      return PackedKind::kF16;
    case DType::kBF16:
      return PackedKind::kBF16;
    case DType::kF32:
    case DType::kI8:
    case DType::kI4:
      break;
  }
  return PackedKind::kF32;
}

void ReadSourceUnit(DType dtype, const uint8_t* source, SourceUnit* unit) {
  switch (dtype) {
    case DType::kQ4_0:
      return ReadQ4_0(source, unit);
    case DType::kQ4_1:
      return ReadQ4_1(source, unit);
    case DType::kQ5_0:
      return ReadQ5_0(source, unit);
    case DType::kQ5_1:
      return ReadQ5_1(source, unit);
    case DType::kQ8_0:
      return ReadQ8_0(source, unit);
    case DType::kQ4_K:
      return ReadQ4_K(source, unit);
    case DType::kQ5_K:
      return ReadQ5_K(source, unit);
    case DType::kQ6_K:
      return ReadQ6_K(source, unit);
    default:
      KVASIR_CHECK(false);
  }
}

}  // namespace kvasir
