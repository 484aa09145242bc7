// What a kernel may use of CUDA: barriers, warp collectives, wide loads, asynchronous copies,
// matrix products, launches. Each is one small function, so that the tests can define the same
// names in plain C++ and run the kernels on any machine (KVASIR_CUDA_EMULATION names their header).
//
// Rules that keep kernels both fast and checkable: global memory through Global<T>, shared memory
// through SharedAt<T> alone, warp collectives by whole warps, blocks of whole warps; and every
// thread of every kernel calls AwaitEarlierKernels.
#pragma once

#if defined(KVASIR_CUDA_EMULATION)
#include KVASIR_CUDA_EMULATION
#else

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <utility>

#include "kernels/core/status.h"

namespace kvasir::cuda {

template <typename T>
using Global = T*;
template <typename T>
using Shared = T*;

// ---- order of kernels
// Kernels of a graph overlap where IsOverlapped says so: the blocks of the next one take their
// places while this one runs. So every thread waits before it touches global memory, be it to read
// what an earlier kernel writes or to write what one still reads, and before it ends: then a kernel
// that is done has all before it done, and whoever waits for the last has waited for all. Weights
// may be read before (LoadOnce): nothing in a graph writes them.
__device__ __forceinline__ void AwaitEarlierKernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may begin when every block of this one has called this or ended: its blocks never
// take the place of one of these. So it comes first of all.
__device__ __forceinline__ void LetNextBegin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// ---- barriers and warp collectives
__device__ __forceinline__ void SyncBlock() { __syncthreads(); }
__device__ __forceinline__ void SyncWarp() { __syncwarp(); }
template <typename T>
__device__ __forceinline__ T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}
template <typename T>
__device__ __forceinline__ T ShuffleFrom(T value, int source) {
  return __shfl_sync(0xFFFFFFFFu, value, source);
}
// From the lane `step` below; the lowest lanes get their own.
template <typename T>
__device__ __forceinline__ T ShuffleUp(T value, int step) {
  return __shfl_up_sync(0xFFFFFFFFu, value, static_cast<unsigned>(step));
}
// The warp's values combined, the same in every lane: a butterfly, combine(a, b) == combine(b, a).
template <typename T, typename Combine>
__device__ __forceinline__ T ReduceWarp(T value, const Combine& combine) {
  for (int mask = 16; mask > 0; mask /= 2) value = combine(value, ShuffleXor(value, mask));
  return value;
}
__device__ __forceinline__ bool AnyInWarp(bool vote) { return __any_sync(0xFFFFFFFFu, vote) != 0; }

// ---- memory
struct alignas(8) Vec2 {
  float x, y;
};
struct alignas(16) Vec4 {
  float x, y, z, w;
};
struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
  uint32_t x, y;
};

template <typename V, typename T>
__device__ __forceinline__ V LoadAs(T* from) {
  return *reinterpret_cast<const V*>(from);
}
// Read once by the whole grid, and constant (weights): leaves the first cache to what is read
// again. Not .nc, and volatile: what is asked for before AwaitEarlierKernels would else be moved
// behind it.
template <typename V, typename T>
__device__ __forceinline__ V LoadOnce(T* from) {
  V value;
  if constexpr (sizeof(V) == 16) {
    uint32_t w[4];
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
                 : "l"(from));
    __builtin_memcpy(&value, w, 16);
  } else {
    value = *reinterpret_cast<const V*>(from);
  }
  return value;
}
template <typename V, typename T>
__device__ __forceinline__ void StoreAs(T* to, const V& value) {
  *reinterpret_cast<V*>(to) = value;
}

template <typename V, typename T>
__device__ __forceinline__ V LoadShared(T* from) {
  return *reinterpret_cast<const V*>(from);
}
template <typename V, typename T>
__device__ __forceinline__ void StoreShared(T* to, const V& value) {
  *reinterpret_cast<V*>(to) = value;
}
extern __shared__ __align__(128) unsigned char kvasir_shared_memory[];
template <typename T>
__device__ __forceinline__ T* SharedAt(size_t offset) {
  return reinterpret_cast<T*>(kvasir_shared_memory + offset);
}
// Ordered by barriers against everything but other AtomicAdds.
__device__ __forceinline__ void AtomicAdd(uint32_t* to, uint32_t value) { atomicAdd(to, value); }
__device__ __forceinline__ void AtomicAdd(uint64_t* to, uint64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
}
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes, there when WaitCopies says so; zeros if not `valid`, and nothing is read.
__device__ __forceinline__ void CopyAsync16(uint16_t* to, const uint16_t* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(to)), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most `kInFlight` of this thread's committed groups are under way.
template <int kInFlight>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
}

// ---- matrices of 8 x 8 bf16 values: lane i names row i % 8 of matrix i / 8; a lane gets elements
// (lane / 4, 2 * (lane % 4) and the next) of each, or of its transpose.
__device__ __forceinline__ void LoadMatrix4(uint16_t* row, uint32_t (&out)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(SharedAddress(row))
               : "memory");
}
__device__ __forceinline__ void LoadMatrix4Transposed(uint16_t* row, uint32_t (&out)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(SharedAddress(row))
               : "memory");
}
// c += a * b of a warp, 16 x 8 x 16 bf16: mma.m16n8k16's fragments.
__device__ __forceinline__ void MultiplyBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- numbers
__device__ __forceinline__ float HalfToFloat(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
// high's 16 bits above low's, each rounded to nearest even.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
__device__ __forceinline__ uint16_t FloatToBf16(float value) {
  return static_cast<uint16_t>(PackBf16(value, 0.0f));
}
__device__ __forceinline__ float BitsToFloat(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t FloatToBits(float value) { return __float_as_uint(value); }
// To nearest even; NaN is 0.
__device__ __forceinline__ int RoundToInt(float value) { return __float2int_rn(value); }
// Four int8 values as bf16, exactly: the first two in `low`. 128 plus the low seven bits, minus 128
// or, where the sign is set, 256.
__device__ __forceinline__ void WidenInt8(uint32_t four, uint32_t& low, uint32_t& high) {
  const uint32_t pairs[2] = {__byte_perm(four, 0, 0x4140), __byte_perm(four, 0, 0x4342)};
  uint32_t wide[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t bits = (pairs[i] & 0x007F007Fu) | 0x43004300u;
    const uint32_t from = (pairs[i] & 0x00800080u) | 0x43004300u;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(wide[i]) : "r"(from), "r"(0xBF80BF80u), "r"(bits));
  }
  low = wide[0];
  high = wide[1];
}
__device__ __forceinline__ float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ float Exp(float x) { return expf(x); }
// Two units in the last place; what would be subnormal is zero.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float Log2(float x) { return log2f(x); }
__device__ __forceinline__ float Erfc(float x) { return erfcf(x); }
__device__ __forceinline__ float Sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ float Infinity() { return __int_as_float(0x7F800000); }
__device__ __forceinline__ float Max(float a, float b) { return fmaxf(a, b); }

// ---- launches
using Stream = void*;

struct LaunchShape {
  unsigned blocks_x = 1, blocks_y = 1, threads = 32;
  size_t shared_bytes = 0;
};

// Whether what this thread launches on `stream` may begin before the kernel in front is done:
// while a graph of overlapped kernels is recorded (BeginRecording). Copies and events keep their
// order, and so does everything outside of graphs.
bool IsOverlapped(Stream stream);

// Of the last launch on this thread.
Status LaunchStatus(const char* kernel, int error);

template <typename... P, typename... A>
Status Launch(Stream stream, const LaunchShape& shape, void (*kernel)(P...), A&&... arguments) {
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return LaunchStatus("shared memory", error);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.blocks_x, shape.blocks_y);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = IsOverlapped(stream) ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, P(std::forward<A>(arguments))...);
  return error == cudaSuccess ? Status::Ok() : LaunchStatus("kernel", error);
}

}  // namespace kvasir::cuda

#endif
