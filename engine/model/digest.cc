#include "engine/model/digest.h"

#include <bit>
#include <cstring>

namespace kvasir {
namespace {

// Eight lanes, one 64-bit word each a round: enough independent multiplies to hide their latency.
constexpr size_t kLanes = 8;
constexpr size_t kStripe = kLanes * sizeof(uint64_t);

// Odd constants (fractional digits of square roots), so that multiplication can be undone.
constexpr std::array<uint64_t, kLanes> kFactors = {
    0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};

using Lanes = std::array<uint64_t, kLanes>;

// Every step is a bijection of the lane and of the word: one changed word always changes its lane.
// Multiplying the word, too, spreads a flipped bit so that no flip of few bits in the lane's next
// word can take it back.
void Absorb(const std::byte* stripe, Lanes& lanes) {
  Lanes words;
  std::memcpy(words.data(), stripe, kStripe);
  for (size_t i = 0; i < kLanes; ++i) {
    lanes[i] = std::rotl(lanes[i] + words[i] * kFactors[(i + 3) % kLanes], 31) * kFactors[i];
  }
}

uint64_t Avalanche(uint64_t x) {
  x = (x ^ x >> 32) * 0xD6E8FEB86659FD93;
  x = (x ^ x >> 29) * 0xA0761D6478BD642F;
  return x ^ x >> 32;
}

// Folds the lanes one after the other, so that their order counts.
uint64_t Fold(const Lanes& lanes, uint64_t start, size_t first) {
  uint64_t state = start;
  for (size_t i = 0; i < kLanes; ++i) {
    state = Avalanche(state ^ lanes[(first + i) % kLanes]) + kFactors[i];
  }
  return Avalanche(state);
}

}  // namespace

std::string FileDigest::Hex() const {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint64_t half : {high, low}) {
    for (int shift = 60; shift >= 0; shift -= 4) text.push_back(kDigits[half >> shift & 15]);
  }
  return text;
}

FileDigest DigestOf(std::span<const std::byte> bytes, uint64_t seed) {
  Lanes lanes = kFactors;
  for (uint64_t& lane : lanes) lane ^= Avalanche(seed + 1);
  const size_t whole = bytes.size() / kStripe;
  for (size_t i = 0; i < whole; ++i) Absorb(bytes.data() + i * kStripe, lanes);

  // The rest, padded with zeros; the length below tells it from real zeros.
  std::array<std::byte, kStripe> tail{};
  const size_t rest = bytes.size() - whole * kStripe;
  if (rest > 0) std::memcpy(tail.data(), bytes.data() + whole * kStripe, rest);
  Absorb(tail.data(), lanes);

  const uint64_t length = bytes.size();
  return {Fold(lanes, length, 0), Fold(lanes, ~length * kFactors[0], 3)};
}

}  // namespace kvasir
