// CpuOps: the inner loops of one instruction set, chosen once when the backend is created.
//
// Each member is a table of plain function pointers over raw arrays, defined in the header named
// beside it and filled by the files with the suffix of the instruction set (*_scalar.cc, *_avx2.cc,
// *_avx512.cc: the suffix gives them their compiler flags). Immutable; static lifetime.
#pragma once

#include "kernels/cpu/cpu_backend.h"

namespace kvasir {

struct MatMulOps;  // matmul.h
struct Int8Ops;    // block_matmul.h
struct Bf16Ops;
struct ElementwiseOps;  // elementwise.h
struct KvOps;           // kv.h
struct AttentionOps;    // attention.h

struct CpuOps {
  Isa isa = Isa::kScalar;
  const MatMulOps* matmul = nullptr;
  const Int8Ops* int8 = nullptr;
  const Bf16Ops* bf16 = nullptr;  // null where there are no such instructions
  const ElementwiseOps* elementwise = nullptr;
  const KvOps* kv = nullptr;
  const AttentionOps* attention = nullptr;
};

CpuOps CpuOpsFor(Isa isa, ComputeType compute);  // isa is never kAuto

}  // namespace kvasir
