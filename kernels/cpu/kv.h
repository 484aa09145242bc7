// The CPU's KV pool: its memory layout, and the operators that write and read it. Drivers are
// portable; inner loops come from one table an instruction set (kv_{scalar,avx2,avx512}.cc).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/core/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace kvasir {

class ThreadPool;
struct KvOps;  // defined beside its implementations

const KvOps& KvOpsFor(Isa isa);  // isa is never kAuto

// The semantics of these are those of the Backend operators of the same name.
Result<std::unique_ptr<KvPool>> CreateCpuKvPool(const KvLayout& layout, int32_t blocks,
                                                std::span<const float> key_balance);
void CpuCopyBlock(KvPool& pool, int32_t from, int32_t to);
// Runs on the caller's thread alone: it may run beside a step.
void CpuLoadKv(const KvOps& ops, KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
               std::span<const int32_t> block_ids, const RopeTable* rope);
void CpuSaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
               float* host_k, float* host_v);
void CpuReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids,
               int32_t tokens, float* host_k, float* host_v);
void CpuAppendKv(const KvOps& ops, ThreadPool& threads, KvPool& pool, int32_t layer,
                 const TensorView& k, const TensorView& v, const StepBatch& batch,
                 const RopeTable* rope);

}  // namespace kvasir
