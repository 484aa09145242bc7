#include "kernels/core/rope.h"

#include <cmath>

#include "kernels/core/status.h"

namespace kvasir {

RopeTable RopeTable::Plain(RopePairing pairing, int32_t rotary_dims, double theta) {
  KVASIR_CHECK(rotary_dims >= 0 && rotary_dims % 2 == 0);
  RopeTable table;
  table.pairing = pairing;
  table.rotary_dims = rotary_dims;
  table.inv_freq.resize(static_cast<size_t>(rotary_dims / 2));
  for (size_t j = 0; j < table.inv_freq.size(); ++j) {
    table.inv_freq[j] = std::pow(theta, -2.0 * static_cast<double>(j) / rotary_dims);
  }
  return table;
}

void RopeTable::CosSin(int64_t position, float* cos, float* sin) const {
  for (size_t j = 0; j < inv_freq.size(); ++j) {
    const double angle = static_cast<double>(position) * inv_freq[j];
    cos[j] = static_cast<float>(std::cos(angle) * magnitude);
    sin[j] = static_cast<float>(std::sin(angle) * magnitude);
  }
}

void RopeTable::Rotate(int64_t position, float* x) const {
  const size_t half = inv_freq.size();
  const bool interleaved = pairing == RopePairing::kInterleaved;
  for (size_t j = 0; j < half; ++j) {
    const double angle = static_cast<double>(position) * inv_freq[j];
    const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
    float& first = x[interleaved ? 2 * j : j];
    float& second = x[interleaved ? 2 * j + 1 : j + half];
    const double a = first, b = second;
    first = static_cast<float>(a * c - b * s);
    second = static_cast<float>(a * s + b * c);
  }
}

}  // namespace kvasir
