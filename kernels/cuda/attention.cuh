// Backend::Attention on the card: one kernel for matrix units (bf16 pools, D of 64, 128, 256), one
// that computes in fp32 (every pool and D; the reference on the card), both over the units of
// attention_plan.h; then the splits are merged, and weights gathered where they are wanted.
#pragma once

#include "kernels/core/tensor_view.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/kv_pool.h"
#include "kernels/cuda/rotations.h"

namespace kvasir::cuda {

struct Segment {
  int32_t base = 0, length = 0, block = 0, context = 0;
};

// AttentionTables and what they name of the batch, in device memory.
struct DeviceTables {
  const Piece* pieces = nullptr;
  const Tile* tiles = nullptr;
  const Unit *small = nullptr, *large = nullptr;
  const int32_t* merges = nullptr;
  const SequenceScale* scales = nullptr;
  const Segment* segments = nullptr;
  const int32_t* positions = nullptr;  // [T]
  const int32_t* block_table = nullptr;
  int32_t small_count = 0, large_count = 0, merge_count = 0;
};

struct AttentionCall {
  const CudaKvPool* pool = nullptr;
  int32_t layer = 0;
  TensorView q, out;  // [T][H*D]
  float scale = 1;
  int32_t window = 0, group = 1;
  RotationView rotations;
  DeviceTables tables;
  // Of split tiles, [G][partials] times [D] and (maximum, sum).
  float *partial_out = nullptr, *partial_stats = nullptr;
  int64_t partials = 0;
  // [T][H] (maximum in units of log 2, sum), written if not null.
  float* stats = nullptr;
};

// Whether AttentionOnMatrixUnits takes such a pool.
bool FitsMatrixUnits(const KvGeometry& geometry);
Status AttentionOnMatrixUnits(Stream stream, const AttentionCall& call);
Status AttentionInFp32(Stream stream, const AttentionCall& call);
Status MergeSplits(Stream stream, const AttentionCall& call);

// Adds the softmax weights of rows [row_begin, row_end) of one sequence to mass [H][stride], row by
// row; call.stats must hold theirs. rounded = queries were rounded to bf16.
struct MassCall {
  int32_t row_begin = 0, row_end = 0, segment_begin = 0, segment_end = 0, sequence = 0;
  bool rounded = false;
  float* mass = nullptr;  // device
  int64_t stride = 0;
};
Status AddMass(Stream stream, const AttentionCall& call, const MassCall& mass);

}  // namespace kvasir::cuda
