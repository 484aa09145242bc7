// Attention on the CPU: the plan (host work once a step) and the operator. Drivers are portable;
// inner loops come from one table an instruction set (attention_{scalar,avx2,avx512}.cc).
#pragma once

#include <memory>

#include "kernels/core/backend.h"
#include "kernels/cpu/cpu_backend.h"

namespace kvasir {

class ThreadPool;
struct AttentionOps;  // defined beside its implementations

// isa is never kAuto. kInt8 rounds queries and weights over bf16 pools to bf16 where the
// instruction set multiplies them.
const AttentionOps& AttentionOpsFor(Isa isa, ComputeType compute);

// `threads`: how many will share the work; must not change a row's result.
std::unique_ptr<AttentionPlan> CpuPlanAttention(const StepBatch& batch, int threads);
void CpuAttention(const AttentionOps& ops, ThreadPool& threads, const AttentionArgs& args);

}  // namespace kvasir
