// Packing of weight matrices from model files' types into panels (packed_weight.h), done once at
// load time, and reading single outputs back.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "kernels/core/backend.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/weight_arena.h"

namespace kvasir {

class ThreadPool;

// Immutable after packing; thread-safe.
class CpuPackedWeight : public PackedWeight {
 public:
  CpuPackedWeight(ArenaMemory memory, const PackedView& view)
      : memory_(std::move(memory)), view_(view) {
    outputs_ = view.outputs;
    inputs_ = view.inputs;
    bytes_ = memory_.bytes;
  }
  const PackedView& view() const { return view_; }

 private:
  ArenaMemory memory_;
  PackedView view_;
};

// As Backend::Pack. kInvalidArgument for sizes that the type does not allow.
Result<std::unique_ptr<CpuPackedWeight>> PackMatrix(WeightArena& arena, ThreadPool& threads,
                                                    DType dtype, const void* data, int64_t n,
                                                    int64_t k);

// One output's weights, out [K]: a row of an embedding table.
void DecodeOutput(const PackedView& view, int64_t output, float* out);

}  // namespace kvasir
