// The loops behind MeasureRoof, one table an instruction set. Plain data and pointers only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir {

struct RoofOps {
  // Runs `rounds` rounds of independent register operations; returns the operations done.
  // Null where there is no such instruction.
  double (*fp32)(int64_t rounds);
  double (*bf16)(int64_t rounds);
  double (*int8)(int64_t rounds);
  // Reads all of [data, data + bytes), a multiple of 512; returns something that depends on it.
  uint64_t (*read)(const uint8_t* data, size_t bytes);
};

extern const RoofOps kRoofScalar;
extern const RoofOps kRoofAvx2;
extern const RoofOps kRoofAvx512;

}  // namespace kvasir
