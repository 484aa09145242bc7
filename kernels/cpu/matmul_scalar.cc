// Matrix products in portable C++: every row count takes the tiled path (direct_rows = 0), whose
// loops the compiler may turn into whatever vectors the baseline has.
#include <cstring>

#include "kernels/core/dtype.h"
#include "kernels/cpu/matmul_kernels.h"

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
};

void NoDirect(const PackedView&, int64_t, int, const float*, int64_t, int, float*) {}

}  // namespace

const MatMulOps kMatMulScalar = {
    .direct_rows = 0,
    .direct_panels = 1,
    .tile_rows = 2,
    .tile_panels = 1,
    .direct = NoDirect,
    .decode = Decode<Vector, 1>,
    .multiply = Multiply<Vector, 2, 1>,
    .finish = Finish<Vector>,
};

}  // namespace kvasir
