// Decoders: from a panel's packed block to fp32 weights, 16 outputs at a time. Included by the
// matmul_<isa>.cc files alone, after they define `Vector`; internal linkage, because each of them
// compiles it for other instructions.
//
// A decoder serves blocks of kBlock inputs that share a scale, in groups of 8 inputs:
//   Begin(panel, block); Group g = Load(group); F w = Weight(g, i) for input 8 * group + i.
// Plain types have blocks of 8 and may end in a shorter one.
#pragma once

#include <cstdint>

#include "kernels/cpu/inline.h"
#include "kernels/cpu/packed_weight.h"

namespace kvasir {
namespace {

template <class V>
struct PlainDecoder {
  static constexpr int kBlock = 8;
  static constexpr bool kPlain = true;
  using Group = const uint8_t*;
  const uint8_t* at;
};

template <class V>
struct F32Decoder : PlainDecoder<V> {
  static constexpr int kBlockBytes = 8 * 64;
  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    this->at = panel + block * kBlockBytes;
  }
  KVASIR_INLINE const uint8_t* Load(int group) const { return this->at; }
  static KVASIR_INLINE typename V::F Weight(const uint8_t* group, int i) {
    return V::Load(reinterpret_cast<const float*>(group) + 16 * i);
  }
};

template <class V>
struct F16Decoder : PlainDecoder<V> {
  static constexpr int kBlockBytes = 8 * 32;
  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    this->at = panel + block * kBlockBytes;
  }
  KVASIR_INLINE const uint8_t* Load(int group) const { return this->at; }
  static KVASIR_INLINE typename V::F Weight(const uint8_t* group, int i) {
    return V::LoadF16(group + 32 * i);
  }
};

template <class V>
struct BF16Decoder : PlainDecoder<V> {
  static constexpr int kBlockBytes = 8 * 32;
  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    this->at = panel + block * kBlockBytes;
  }
  KVASIR_INLINE const uint8_t* Load(int group) const { return this->at; }
  static KVASIR_INLINE typename V::F Weight(const uint8_t* group, int i) {
    return V::LoadBF16(group + 32 * i);
  }
};

// ---- 4-bit -------------------------------------------------------------------------------------

template <class V>
struct Q4Decoder {
  static constexpr int kBlock = 32;
  static constexpr int kBlockBytes = 288;
  static constexpr bool kPlain = false;
  using Group = typename V::Nibbles;
  const uint8_t* quants;
  typename V::F scale;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block * kBlockBytes;
    scale = V::LoadF16(unit);
    quants = unit + 32;
  }
  KVASIR_INLINE Group Load(int group) const { return V::LoadNibbles(quants + 64 * group); }
  KVASIR_INLINE typename V::F Weight(const Group& group, int i) const {
    return V::Mul(V::NibbleMinus8(group, i), scale);
  }
};

template <class V>
struct Q4MinDecoder {
  static constexpr int kBlock = 32;
  static constexpr int kBlockBytes = 320;
  static constexpr bool kPlain = false;
  using Group = typename V::Nibbles;
  const uint8_t* quants;
  typename V::F scale, minimum;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block * kBlockBytes;
    scale = V::LoadF16(unit);
    minimum = V::LoadF16(unit + 32);
    quants = unit + 64;
  }
  KVASIR_INLINE Group Load(int group) const { return V::LoadNibbles(quants + 64 * group); }
  KVASIR_INLINE typename V::F Weight(const Group& group, int i) const {
    return V::Fma(V::Nibble(group, i), scale, minimum);
  }
};

// Scale and (negated) minimum of 32 inputs of a 256-input unit: products of fp16 and 6-bit values,
// exact in fp32.
template <class V>
KVASIR_INLINE void LoadSuperScales(const uint8_t* unit, int64_t sub, typename V::F* scale,
                                   typename V::F* minimum) {
  const uint8_t* const at = unit + 64 + 32 * sub;
  *scale = V::Mul(V::LoadF16(unit), V::LoadU8(at));
  *minimum = V::Mul(V::Sub(V::Zero(), V::LoadF16(unit + 32)), V::LoadU8(at + 16));
}

template <class V>
struct Q4SuperDecoder {
  static constexpr int kBlock = 32;
  static constexpr int kUnitBytes = 64 + 256 + 2048;
  static constexpr int kBlockBytes = kUnitBytes / 8;
  static constexpr bool kPlain = false;
  using Group = typename V::Nibbles;
  const uint8_t* quants;
  typename V::F scale, minimum;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block / 8 * kUnitBytes;
    LoadSuperScales<V>(unit, block % 8, &scale, &minimum);
    quants = unit + 320 + 256 * (block % 8);
  }
  KVASIR_INLINE Group Load(int group) const { return V::LoadNibbles(quants + 64 * group); }
  KVASIR_INLINE typename V::F Weight(const Group& group, int i) const {
    return V::Fma(V::Nibble(group, i), scale, minimum);
  }
};

// ---- 8-bit -------------------------------------------------------------------------------------

template <class V>
struct Q8Decoder {
  static constexpr int kBias = 128;
  static constexpr int kBlock = 32;
  static constexpr int kBlockBytes = 544;
  static constexpr bool kPlain = false;
  using Group = const uint8_t*;
  const uint8_t* quants;
  typename V::F scale;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block * kBlockBytes;
    scale = V::LoadF16(unit);
    quants = unit + 32;
  }
  KVASIR_INLINE Group Load(int group) const { return quants + 128 * group; }
  KVASIR_INLINE typename V::F Weight(Group group, int i) const {
    return V::Mul(V::Byte(group + 64 * (i % 2), i / 2, kBias), scale);
  }
};

template <class V>
struct Q8MinDecoder {
  static constexpr int kBlock = 32;
  static constexpr int kBlockBytes = 576;
  static constexpr bool kPlain = false;
  using Group = const uint8_t*;
  const uint8_t* quants;
  typename V::F scale, minimum;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block * kBlockBytes;
    scale = V::LoadF16(unit);
    minimum = V::LoadF16(unit + 32);
    quants = unit + 64;
  }
  KVASIR_INLINE Group Load(int group) const { return quants + 128 * group; }
  KVASIR_INLINE typename V::F Weight(Group group, int i) const {
    return V::Fma(V::Byte(group + 64 * (i % 2), i / 2, 0), scale, minimum);
  }
};

template <class V>
struct Q8SuperDecoder {
  static constexpr int kBlock = 32;
  static constexpr int kUnitBytes = 64 + 256 + 4096;
  static constexpr int kBlockBytes = kUnitBytes / 8;
  static constexpr bool kPlain = false;
  using Group = const uint8_t*;
  const uint8_t* quants;
  typename V::F scale, minimum;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block / 8 * kUnitBytes;
    LoadSuperScales<V>(unit, block % 8, &scale, &minimum);
    quants = unit + 320 + 512 * (block % 8);
  }
  KVASIR_INLINE Group Load(int group) const { return quants + 128 * group; }
  KVASIR_INLINE typename V::F Weight(Group group, int i) const {
    return V::Fma(V::Byte(group + 64 * (i % 2), i / 2, 0), scale, minimum);
  }
};

template <class V>
struct Q8SuperFineDecoder {
  static constexpr int kBias = 32;
  static constexpr int kBlock = 16;
  static constexpr int kUnitBytes = 64 + 256 + 4096;
  static constexpr int kBlockBytes = kUnitBytes / 16;
  static constexpr bool kPlain = false;
  using Group = const uint8_t*;
  const uint8_t* quants;
  typename V::F scale;

  KVASIR_INLINE void Begin(const uint8_t* panel, int64_t block) {
    const uint8_t* const unit = panel + block / 16 * kUnitBytes;
    scale = V::Mul(V::LoadF16(unit), V::LoadS8(unit + 64 + 16 * (block % 16)));
    quants = unit + 320 + 256 * (block % 16);
  }
  KVASIR_INLINE Group Load(int group) const { return quants + 128 * group; }
  KVASIR_INLINE typename V::F Weight(Group group, int i) const {
    return V::Mul(V::Byte(group + 64 * (i % 2), i / 2, kBias), scale);
  }
};

// Calls use.template operator()<Decoder>() with the decoder of `kind`.
template <class V, class Use>
void WithDecoder(PackedKind kind, const Use& use) {
  switch (kind) {
    case PackedKind::kF32:
      return use.template operator()<F32Decoder<V>>();
    case PackedKind::kF16:
      return use.template operator()<F16Decoder<V>>();
    case PackedKind::kBF16:
      return use.template operator()<BF16Decoder<V>>();
    case PackedKind::kQ4:
      return use.template operator()<Q4Decoder<V>>();
    case PackedKind::kQ4Min:
      return use.template operator()<Q4MinDecoder<V>>();
    case PackedKind::kQ4Super:
      return use.template operator()<Q4SuperDecoder<V>>();
    case PackedKind::kQ8:
      return use.template operator()<Q8Decoder<V>>();
    case PackedKind::kQ8Min:
      return use.template operator()<Q8MinDecoder<V>>();
    case PackedKind::kQ8Super:
      return use.template operator()<Q8SuperDecoder<V>>();
    case PackedKind::kQ8SuperFine:
      return use.template operator()<Q8SuperFineDecoder<V>>();
  }
}

}  // namespace
}  // namespace kvasir
