// Philox4x32-10 (Salmon et al., 2011): random bits as a pure function of (key, counter), so that a
// draw depends on a request's seed and position alone and never on the batch around it. The same
// functions run on the host and in kernels.
#pragma once

#include <array>
#include <cstdint>

namespace kvasir {

using PhiloxBlock = std::array<uint32_t, 4>;

constexpr PhiloxBlock Philox(PhiloxBlock counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// 53 random bits for draw `index` of stream `seed`.
constexpr uint64_t RandomBitsAt(uint64_t seed, uint64_t index) {
  const PhiloxBlock bits =
      Philox({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return (uint64_t{bits[0]} << 32 | bits[1]) >> 11;
}

// The same as a number in [0, 1).
constexpr double UniformAt(uint64_t seed, uint64_t index) {
  return static_cast<double>(RandomBitsAt(seed, index)) * 0x1.0p-53;
}

}  // namespace kvasir
