// WeightsDigest: a fast 128-bit digest over long byte strings, to notice that a model file is
// another one. Not cryptographic: it guards against mix-ups, not against forgery.
// Thread safety: free function without state. The value is stored on disk: never change it.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>

namespace kvasir {

// 32 hex digits over the parts, each with its length.
std::string WeightsDigest(std::initializer_list<std::span<const std::byte>> parts);

}  // namespace kvasir
