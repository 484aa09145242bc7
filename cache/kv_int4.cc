#include "cache/kv_int4.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "kernels/core/kv_layout.h"

namespace kvasir {
namespace {

constexpr float kLevels = 15.0f;
constexpr uint16_t kF16Infinity = 0x7c00;

// The largest fp16 value that is not above x, as bits.
uint16_t F16Below(float x) {
  const uint16_t bits = F32ToF16(x);
  if (!(F16ToF32(bits) > x)) return bits;
  if ((bits & 0x8000u) != 0) return static_cast<uint16_t>(bits + 1);
  return bits == 0 ? uint16_t{0x8001} : static_cast<uint16_t>(bits - 1);
}

// The smallest fp16 value that is not below x >= 0, as bits.
uint16_t F16Above(float x) {
  const uint16_t bits = F32ToF16(x);
  return F16ToF32(bits) < x ? static_cast<uint16_t>(bits + 1) : bits;
}

bool Finite(uint16_t bits) { return (bits & kF16Infinity) != kF16Infinity; }

struct Grid {
  uint16_t step_bits = 0, low_bits = 0;
  float low = 0, inverse = 0;  // inverse of the step
};

// The finest grid that covers [min, max]. False if it is beyond fp16.
bool MakeGrid(float min, float max, Grid* grid) {
  grid->low_bits = F16Below(min);
  if (!Finite(grid->low_bits)) return false;
  grid->low = F16ToF32(grid->low_bits);
  grid->step_bits = F16Above((max - grid->low) / kLevels);
  const float step = F16ToF32(grid->step_bits);
  grid->inverse = step > 0 ? 1.0f / step : 0.0f;
  return Finite(grid->step_bits);
}

// Rounds to the nearest integer for 0 <= x <= 15, in a form that compilers vectorise: adding
// 1.5 * 2^23 leaves the integer in the low mantissa bits.
uint8_t Round(float x) { return static_cast<uint8_t>(std::bit_cast<uint32_t>(x + 12582912.0f)); }

void PackPairs(const uint8_t* levels, size_t count, uint8_t* out) {
  for (size_t i = 0; i < count; i += 2) {
    out[i / 2] = static_cast<uint8_t>(levels[i] | levels[i + 1] << 4);
  }
}

// Grids of C channels over a group of tokens.
class ChannelGrids {
 public:
  explicit ChannelGrids(size_t channels)
      : min_(channels), max_(channels), low_(channels), inverse_(channels), levels_(channels) {}

  bool Fit(const float* k, size_t tokens, uint16_t* step, uint16_t* low) {
    std::copy_n(k, channels(), min_.data());
    max_ = min_;
    for (size_t t = 1; t < tokens; ++t) Widen(k + t * channels());
    Grid grid;
    for (size_t c = 0; c < channels(); ++c) {
      if (!MakeGrid(min_[c], max_[c], &grid)) return false;
      step[c] = grid.step_bits;
      low[c] = grid.low_bits;
      low_[c] = grid.low;
      inverse_[c] = grid.inverse;
    }
    return true;
  }

  void PackToken(const float* k, uint8_t* out) {
    for (size_t c = 0; c < channels(); ++c) levels_[c] = Round((k[c] - low_[c]) * inverse_[c]);
    PackPairs(levels_.data(), channels(), out);
  }

 private:
  size_t channels() const { return min_.size(); }
  void Widen(const float* row) {
    for (size_t c = 0; c < channels(); ++c) {
      min_[c] = std::min(min_[c], row[c]);
      max_[c] = std::max(max_[c], row[c]);
    }
  }

  std::vector<float> min_, max_, low_, inverse_;
  std::vector<uint8_t> levels_;  // of one token
};

}  // namespace

bool PackPerChannel(const float* k, size_t tokens, size_t channels, uint8_t* out, uint16_t* step,
                    uint16_t* low) {
  ChannelGrids grids(channels);
  for (size_t first = 0; first < tokens; first += kInt4GroupTokens) {
    const size_t count = std::min<size_t>(kInt4GroupTokens, tokens - first);
    if (!grids.Fit(k + first * channels, count, step, low)) return false;
    for (size_t t = first; t < first + count; ++t) {
      grids.PackToken(k + t * channels, out + t * channels / 2);
    }
    step += channels;
    low += channels;
  }
  return true;
}

bool PackPerRow(const float* v, size_t rows, size_t dim, uint8_t* out, uint16_t* step,
                uint16_t* low) {
  std::vector<uint8_t> levels(dim);
  Grid grid;
  for (size_t row = 0; row < rows; ++row) {
    const float* in = v + row * dim;
    const auto [min, max] = std::minmax_element(in, in + dim);
    if (!MakeGrid(*min, *max, &grid)) return false;
    step[row] = grid.step_bits;
    low[row] = grid.low_bits;
    for (size_t d = 0; d < dim; ++d) levels[d] = Round((in[d] - grid.low) * grid.inverse);
    PackPairs(levels.data(), dim, out + row * dim / 2);
  }
  return true;
}

}  // namespace kvasir
