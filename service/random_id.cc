#include "service/random_id.h"

#include <mutex>
#include <random>

namespace kvasir {
namespace {

uint64_t Next() {
  static std::mutex mutex;
  static std::mt19937_64 generator{std::random_device{}()};
  std::lock_guard lock(mutex);
  return generator();
}

}  // namespace

std::string RandomHex(int digits) {
  constexpr char alphabet[] = "0123456789abcdef";
  std::string text;
  uint64_t bits = 0;
  for (int i = 0; i < digits; ++i) {
    if (i % 16 == 0) bits = Next();
    text += alphabet[bits & 15];
    bits >>= 4;
  }
  return text;
}

uint64_t RandomSeed() { return Next(); }

}  // namespace kvasir
