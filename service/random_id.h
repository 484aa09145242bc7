// Random names for requests and replies. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

namespace kvasir {

std::string RandomHex(int digits);
uint64_t RandomSeed();

}  // namespace kvasir
