// Vector: 16 lanes in portable C++, for the inner loops of matrix products. Included by *_scalar.cc
// files alone.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/core/dtype.h"
#include "kernels/cpu/inline.h"

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
  static I BeginSum() { return ZeroI(); }
  template <bool kNibbles>
  static F EndSum(const I& sum) {
    return ToFloat(sum);
  }
  static F ToFloat(const I& value) {
    return Each([&](int i) { return static_cast<float>(static_cast<int32_t>(value.lane[i])); });
  }
};

}  // namespace
}  // namespace kvasir
