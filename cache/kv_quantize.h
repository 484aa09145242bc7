// Quantisation of one layer's K and V. Private to cache/; pure functions.
// Shapes: T tokens, C = G*D channels, row-major [T][C]; V scales one per (token, head of D).
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

// False if a value is an infinity or NaN.
bool AllFinite(const float* values, size_t count);

// out[t][c] = round(k[t][c] / scale[c]), scale[c] = max_t |k[t][c]| / 127.
void QuantizePerChannel(const float* k, size_t tokens, size_t channels, int8_t* out, float* scale);

// out[t][g*D + d] = round(v / scale[t][g]), scale[t][g] = max_d |v[t][g*D + d]| / 127.
void QuantizePerTokenHead(const float* v, size_t tokens, size_t heads, size_t dim, int8_t* out,
                          float* scale);

// False if a finite value overflows fp16.
bool ToF16(const float* values, size_t count, uint16_t* out);

}  // namespace kvasir
