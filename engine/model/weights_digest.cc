#include "engine/model/weights_digest.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace kvasir {
namespace {

constexpr std::array<uint64_t, 4> kOdd = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F,
                                          0x165667B19E3779F9, 0xD6E8FEB86659FD93};

// Four independent lanes, so that the multiplier's latency hides. One step is a bijection of the
// state for a given word and of the word for a given state: no changed word goes unseen.
class Lanes {
 public:
  void Absorb(std::span<const std::byte> bytes) {
    Mix(0, bytes.size());
    size_t at = 0;
    for (; at + 32 <= bytes.size(); at += 32) {
      for (size_t lane = 0; lane < 4; ++lane) Mix(lane, Word(bytes, at + 8 * lane, 8));
    }
    for (size_t lane = 0; at < bytes.size(); at += 8, ++lane) {
      Mix(lane, Word(bytes, at, std::min<size_t>(8, bytes.size() - at)));
    }
  }

  std::string Hex() {
    for (int round = 0; round < 3; ++round) {
      for (size_t lane = 0; lane < 4; ++lane) {
        Mix(lane, state_[(lane + 1) % 4] ^ (state_[lane] >> 32));
      }
    }
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx",
                  static_cast<unsigned long long>(state_[0] ^ std::rotl(state_[2], 17)),
                  static_cast<unsigned long long>(state_[1] ^ std::rotl(state_[3], 41)));
    return text;
  }

 private:
  static uint64_t Word(std::span<const std::byte> bytes, size_t at, size_t count) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, count);
    return word;
  }
  void Mix(size_t lane, uint64_t word) {
    state_[lane] = std::rotl((state_[lane] ^ word) * kOdd[lane], 29);
  }

  std::array<uint64_t, 4> state_ = {0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0,
                                    0x082EFA98EC4E6C89};
};

}  // namespace

std::string WeightsDigest(std::initializer_list<std::span<const std::byte>> parts) {
  Lanes lanes;
  for (const std::span<const std::byte> part : parts) lanes.Absorb(part);
  return lanes.Hex();
}

}  // namespace kvasir
