#include "kernels/cpu/pack.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/core/shape_checks.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/source_unit.h"

namespace kvasir {
namespace {

void StoreU16(uint8_t* at, uint16_t value) { std::memcpy(at, &value, sizeof value); }

uint16_t LoadU16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Eight 4-bit values of one output, first in the lowest bits.
uint32_t PackNibbles(const uint8_t* quant) {
  uint32_t word = 0;
  for (int i = 0; i < 8; ++i) word |= uint32_t{quant[i]} << (4 * i);
  return word;
}

// Of an 8-bit value.
int ByteOffset(int lane, int input) {
  return 128 * (input / 8) + 64 * (input % 2) + 4 * lane + input % 8 / 2;
}

void StoreQuants(const PackedTraits& traits, const SourceUnit& source, int lane, uint8_t* quants) {
  if (traits.quant_bits == 4) {
    for (int group = 0; group < traits.unit_inputs / 8; ++group) {
      const uint32_t word = PackNibbles(source.quant + 8 * group);
      std::memcpy(quants + 64 * group + 4 * lane, &word, sizeof word);
    }
    return;
  }
  for (int input = 0; input < traits.unit_inputs; ++input) {
    quants[ByteOffset(lane, input)] = source.quant[input];
  }
}

void StoreSubScales(PackedKind kind, const SourceUnit& source, int lane, uint8_t* sub) {
  if (kind == PackedKind::kQ8SuperFine) {
    for (int i = 0; i < 16; ++i) sub[16 * i + lane] = source.sub_scale[i];
    return;
  }
  for (int i = 0; i < 8; ++i) {
    sub[32 * i + lane] = source.sub_scale[i];
    sub[32 * i + 16 + lane] = source.sub_minimum[i];
  }
}

void StoreUnit(PackedKind kind, const SourceUnit& source, int lane, uint8_t* unit) {
  const PackedTraits traits = TraitsOf(kind);
  StoreU16(unit + 2 * lane, source.scale);
  if (traits.quant_offset >= 64) StoreU16(unit + 32 + 2 * lane, source.minimum);
  if (traits.unit_inputs == 256) StoreSubScales(kind, source, lane, unit + 64);
  StoreQuants(traits, source, lane, unit + traits.quant_offset);
}

void PackQuantizedOutput(DType dtype, const PackedView& view, const uint8_t* row, int lane,
                         uint8_t* panel) {
  const PackedTraits traits = TraitsOf(view.kind);
  const int32_t source_bytes = TraitsOf(dtype).block_bytes;
  SourceUnit source;
  for (int64_t unit = 0; unit < view.inputs / traits.unit_inputs; ++unit) {
    ReadSourceUnit(dtype, row + unit * source_bytes, &source);
    StoreUnit(view.kind, source, lane, panel + unit * traits.unit_bytes);
  }
}

template <typename Element>
void PackPlainOutput(const PackedView& view, const uint8_t* row, int lane, uint8_t* panel) {
  for (int64_t input = 0; input < view.inputs; ++input) {
    std::memcpy(panel + (input * kPanelOutputs + lane) * sizeof(Element),
                row + static_cast<size_t>(input) * sizeof(Element), sizeof(Element));
  }
}

// Writes panel `index`; `data` is the whole source matrix.
void PackPanel(DType dtype, const PackedView& view, const uint8_t* data, int64_t index,
               uint8_t* panel) {
  const size_t row_bytes = BytesOf(dtype, static_cast<size_t>(view.inputs));
  const int64_t first = index * kPanelOutputs;
  const int lanes = static_cast<int>(std::min<int64_t>(kPanelOutputs, view.outputs - first));
  if (lanes < kPanelOutputs) std::memset(panel, 0, static_cast<size_t>(view.panel_bytes));
  for (int lane = 0; lane < lanes; ++lane) {
    const uint8_t* const row = data + static_cast<size_t>(first + lane) * row_bytes;
    switch (TraitsOf(view.kind).quant_bits) {
      case 32:
        PackPlainOutput<uint32_t>(view, row, lane, panel);
        break;
      case 16:
        PackPlainOutput<uint16_t>(view, row, lane, panel);
        break;
      default:
        PackQuantizedOutput(dtype, view, row, lane, panel);
    }
  }
}

// ---- reading back -----------------------------------------------------------------------------

float DecodeSubScale(PackedKind kind, const uint8_t* unit, int lane, int input, float* minimum) {
  const float scale = F16ToF32(LoadU16(unit + 2 * lane));
  *minimum = 0.0f;
  switch (kind) {
    case PackedKind::kQ4:
      *minimum = -8.0f * scale;
      return scale;
    case PackedKind::kQ8:
      return scale;
    case PackedKind::kQ8SuperFine:
      return scale * static_cast<int8_t>(unit[64 + 16 * (input / 16) + lane]);
    case PackedKind::kQ4Super:
    case PackedKind::kQ8Super: {
      const uint8_t* const sub = unit + 64 + 32 * (input / 32);
      *minimum = -F16ToF32(LoadU16(unit + 32 + 2 * lane)) * sub[16 + lane];
      return scale * sub[lane];
    }
    default:
      *minimum = F16ToF32(LoadU16(unit + 32 + 2 * lane));
      return scale;
  }
}

int DecodeQuant(PackedKind kind, const uint8_t* quants, int lane, int input) {
  if (TraitsOf(kind).quant_bits == 4) {
    uint32_t word;
    std::memcpy(&word, quants + 64 * (input / 8) + 4 * lane, sizeof word);
    return static_cast<int>(word >> (4 * (input % 8)) & 15);
  }
  const int bias = kind == PackedKind::kQ8 ? 128 : kind == PackedKind::kQ8SuperFine ? 32 : 0;
  return quants[ByteOffset(lane, input)] - bias;
}

// scale * q is exact in fp32 (at most 11 + 8 + 8 significant bits for values that files hold), so
// this sum is rounded once, as the fused multiply-add of the products is.
void DecodeUnit(PackedKind kind, const uint8_t* unit, int lane, float* out) {
  const PackedTraits traits = TraitsOf(kind);
  const int step = kind == PackedKind::kQ8SuperFine ? 16 : 32;
  for (int first = 0; first < traits.unit_inputs; first += step) {
    float minimum;
    const float scale = DecodeSubScale(kind, unit, lane, first, &minimum);
    for (int i = first; i < first + step; ++i) {
      const int quant = DecodeQuant(kind, unit + traits.quant_offset, lane, i);
      out[i] = scale * static_cast<float>(quant) + minimum;
    }
  }
}

void DecodePlain(PackedKind kind, const uint8_t* panel, int64_t inputs, int lane, float* out) {
  for (int64_t i = 0; i < inputs; ++i) {
    const int64_t element = i * kPanelOutputs + lane;
    if (kind == PackedKind::kF32) {
      std::memcpy(out + i, panel + 4 * element, sizeof(float));
    } else {
      const uint16_t bits = LoadU16(panel + 2 * element);
      out[i] = kind == PackedKind::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
    }
  }
}

}  // namespace

Result<std::unique_ptr<CpuPackedWeight>> PackMatrix(WeightArena& arena, ThreadPool& threads,
                                                    DType dtype, const void* data, int64_t n,
                                                    int64_t k) {
  KVASIR_RETURN_IF_ERROR(CheckWeightShape(dtype, n, k));
  PackedView view;
  view.kind = PackedKindOf(dtype);
  view.outputs = n;
  view.inputs = k;
  const PackedTraits traits = TraitsOf(view.kind);
  view.panel_bytes = k / traits.unit_inputs * traits.unit_bytes;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(view.panels(), view.panel_bytes, &bytes)) {
    return ResourceExhausted("a weight of " + std::to_string(n) + " x " + std::to_string(k) +
                             " does not fit in memory");
  }
  KVASIR_ASSIGN_OR_RETURN(ArenaMemory memory, arena.Allocate(static_cast<size_t>(bytes)));
  uint8_t* const panels = memory.data;
  view.data = panels;
  threads.ParallelFor(view.panels(), [&](int64_t panel, int) {
    PackPanel(dtype, view, static_cast<const uint8_t*>(data), panel,
              panels + panel * view.panel_bytes);
  });
  return std::make_unique<CpuPackedWeight>(std::move(memory), view);
}

void DecodeOutput(const PackedView& view, int64_t output, float* out) {
  const PackedTraits traits = TraitsOf(view.kind);
  const uint8_t* const panel = view.panel(output / kPanelOutputs);
  const int lane = static_cast<int>(output % kPanelOutputs);
  if (traits.unit_inputs == 1) return DecodePlain(view.kind, panel, view.inputs, lane, out);
  for (int64_t unit = 0; unit < view.inputs / traits.unit_inputs; ++unit) {
    DecodeUnit(view.kind, panel + unit * traits.unit_bytes, lane, out + unit * traits.unit_inputs);
  }
}

}  // namespace kvasir
