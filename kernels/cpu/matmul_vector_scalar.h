// Vector: 16 lanes in portable C++, for the inner loops of matrix products. Included by *_scalar.cc
// files alone.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/core/dtype.h"
#include "kernels/cpu/inline.h"
#include "kernels/cpu/quantized_rows.h"

namespace kvasir {
namespace {

struct Lanes {
  float lane[16];
};
struct Words {
  uint32_t lane[16];
};

struct Vector {
  using F = Lanes;
  using Nibbles = Words;
  using I = Words;  // 16 lanes of 32 bits, or of four bytes

  template <class Function>
  static F Each(const Function& function) {
    F result;
    for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
    return result;
  }
  static F Zero() { return {}; }
  static F Load(const float* at) {
    F result;
    std::memcpy(result.lane, at, sizeof result.lane);
    return result;
  }
  static void Store(float* at, const F& value) { std::memcpy(at, value.lane, sizeof value.lane); }
  static F Broadcast(const float* at) {
    return Each([&](int) { return *at; });
  }
  static F Fma(const F& a, const F& b, const F& c) {
    return Each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static F Mul(const F& a, const F& b) {
    return Each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static F Add(const F& a, const F& b) {
    return Each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static F Sub(const F& a, const F& b) {
    return Each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static void Prefetch(const uint8_t*) {}
  static void PrefetchFar(const uint8_t*) {}

  static uint16_t Bits16(const uint8_t* at, int i) {
    uint16_t bits;
    std::memcpy(&bits, at + 2 * i, sizeof bits);
    return bits;
  }
  static F LoadF16(const uint8_t* at) {
    return Each([&](int i) { return F16ToF32(Bits16(at, i)); });
  }
  static F LoadBF16(const uint8_t* at) {
    return Each([&](int i) { return BF16ToF32(Bits16(at, i)); });
  }
  static F LoadS8(const uint8_t* at) {
    return Each([&](int i) { return static_cast<float>(static_cast<int8_t>(at[i])); });
  }
  static F LoadU8(const uint8_t* at) {
    return Each([&](int i) { return static_cast<float>(at[i]); });
  }

  static Nibbles LoadNibbles(const uint8_t* at) {
    Words words;
    std::memcpy(words.lane, at, sizeof words.lane);
    return words;
  }
  static int Low4(const Nibbles& words, int input, int i) {
    return static_cast<int>(words.lane[i] >> (4 * input) & 15);
  }
  static F Nibble(const Nibbles& words, int input) {
    return Each([&](int i) { return static_cast<float>(Low4(words, input, i)); });
  }
  static F NibbleMinus8(const Nibbles& words, int input) {
    return Each([&](int i) { return static_cast<float>(Low4(words, input, i) - 8); });
  }

  // Byte `byte` of each 32-bit lane, less `bias`.
  static F Byte(const uint8_t* at, int byte, int bias) {
    return Each([&](int i) { return static_cast<float>(at[4 * i + byte] - bias); });
  }

  // ---- integers
  template <class Function>
  static I EachWord(const Function& function) {
    I result;
    for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
    return result;
  }
  static I ZeroI() { return {}; }
  static I LoadI(const uint8_t* at) { return LoadNibbles(at); }
  static void StoreI(uint8_t* at, const I& value) {
    std::memcpy(at, value.lane, sizeof value.lane);
  }
  static I LowNibbles(const I& words) {
    return EachWord([&](int i) { return words.lane[i] & 0x0f0f0f0fu; });
  }
  static I HighNibbles(const I& words) {
    return EachWord([&](int i) { return words.lane[i] >> 4 & 0x0f0f0f0fu; });
  }
  static I BroadcastI(const int8_t* four) {
    uint32_t word;
    std::memcpy(&word, four, sizeof word);
    return EachWord([&](int) { return word; });
  }
  // None of the sums may pass 255.
  static I AddBytes(const I& a, const I& b) {
    return EachWord([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static I Ones() {
    return EachWord([](int) { return 0x01010101u; });
  }
  // sums + four products a lane of unsigned weights and signed values, exact.
  template <bool kNibbles>
  static I Dot(const I& sums, const I& weights, const I& values) {
    return EachWord([&](int i) {
      int32_t sum = static_cast<int32_t>(sums.lane[i]);
      for (int byte = 0; byte < 4; ++byte) {
        sum += static_cast<int32_t>(weights.lane[i] >> (8 * byte) & 255) *
               static_cast<int8_t>(values.lane[i] >> (8 * byte) & 255);
      }
      return static_cast<uint32_t>(sum);
    });
  }
  // Sums of products begin at `start` and end less kDotStart.
  static I BeginSum(int32_t start) {
    return EachWord([&](int) { return static_cast<uint32_t>(start); });
  }
  template <bool kNibbles>
  static F EndSum(const I& sum, int32_t) {
    return Each([&](int i) { return FloatOf(sum.lane[i]) - kDotStartValue; });
  }
  // Lanes of bf16 pairs, (low, high) rounded.
  static I MakePairs(const F& low, const F& high) {
    return EachWord([&](int i) {
      return RoundToBf16(low.lane[i]) >> 16 | (RoundToBf16(high.lane[i]) & 0xffff0000u);
    });
  }
  static uint32_t RoundToBf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits + 0x7fff + (bits >> 16 & 1);
  }
  // What rounding to bf16 takes away.
  static F BelowBf16(const F& value) {
    return Each(
        [&](int i) { return value.lane[i] - FloatOf(RoundToBf16(value.lane[i]) & 0xffff0000u); });
  }
  // a / b, 0 where b is 0.
  static F Ratio(const F& a, const F& b) {
    return Each([&](int i) { return b.lane[i] == 0 ? 0.0f : a.lane[i] / b.lane[i]; });
  }
  static F OrWhereZero(const F& a, const F& b) {
    return Each([&](int i) { return a.lane[i] == 0 ? b.lane[i] : a.lane[i]; });
  }
  static float FloatOf(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  // sums + the two products of each pair with those of `pair`.
  static F AddPairs(const F& sums, const I& pairs, uint32_t pair) {
    const float low = FloatOf(pair << 16), high = FloatOf(pair & 0xffff0000u);
    return Each([&](int i) {
      const uint32_t lane = pairs.lane[i];
      const float sum = sums.lane[i] + FloatOf(lane << 16) * low;
      return sum + FloatOf(lane & 0xffff0000u) * high;
    });
  }
  static F ToFloat(const I& value) {
    return Each([&](int i) { return static_cast<float>(static_cast<int32_t>(value.lane[i])); });
  }
};

}  // namespace
}  // namespace kvasir
