#include "kernels/core/random.h"

#include <gtest/gtest.h>

namespace kvasir {
namespace {

// Known answers of Random123's kat_vectors for philox4x32-10.
TEST(Random, PhiloxKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, BitsAreTheStreamsFirst53) {
  static_assert(RandomBitsAt(0, 0) == (uint64_t{0x6627e8d5} << 32 | 0xe169c58d) >> 11);
  EXPECT_EQ(UniformAt(0, 0), static_cast<double>(RandomBitsAt(0, 0)) / 9007199254740992.0);
  EXPECT_NE(RandomBitsAt(1, 0), RandomBitsAt(0, 1));
  EXPECT_NE(RandomBitsAt(uint64_t{1} << 32, 0), RandomBitsAt(1, 0));
}

}  // namespace
}  // namespace kvasir
