// Quantisation of one layer's K and V to four bits. Private to cache/; pure functions.
//
// value = low + q * step, q in 0..15, grid in fp16 (KvLayerPlanes, kI4). A grid covers all of its
// values: low is rounded down and step up, so that |error| <= step / 2. Asymmetric and per channel
// for K as in KIVI (Liu et al. 2024), because keys of one channel lie far from zero.
// Shapes: T tokens, C = G*D channels, D head dim; C and D are even.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

// k [T][C], one grid a channel and kInt4GroupTokens tokens: out [T][C/2], step and low [groups][C].
// False if a grid is beyond fp16; so below.
bool PackPerChannel(const float* k, size_t tokens, size_t channels, uint8_t* out, uint16_t* step,
                    uint16_t* low);

// v [rows][D], one grid a row (a token's head): out [rows][D/2], step and low [rows].
bool PackPerRow(const float* v, size_t rows, size_t dim, uint8_t* out, uint16_t* step,
                uint16_t* low);

}  // namespace kvasir
