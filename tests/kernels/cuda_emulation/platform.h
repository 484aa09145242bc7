// What kernels/cuda/platform.cuh gives a kernel in CUDA, in plain C++: the same names, each with a
// plain definition. Kernels run when their stream does (streams.h), at once on the null stream; on
// that launches from several threads may run at once. Seeds of thread order: SetSeed().
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/status.h"
#include "tests/kernels/cuda_emulation/block.h"
#include "tests/kernels/cuda_emulation/checked.h"
#include "tests/kernels/cuda_emulation/streams.h"

#define __global__
#define __device__ inline
#define __host__
#define __forceinline__
#define __launch_bounds__(...)

namespace kvasir::emulation {

inline thread_local Dim3 thread_index, block_index, block_size, grid_size;

// Thread orders of all later launches follow from the seed.
void SetSeed(uint64_t seed);
uint64_t NextSeed();
// The next launch fails with this; for tests of error paths.
void FailNextLaunch(Status status);
Status TakeLaunchFailure();
// Since the process began; those that are recorded count once.
size_t LaunchesSoFar();
void CountLaunch();

// Copies to shared memory that a thread has begun and not waited for.
struct PendingCopy {
  std::byte* to;
  const void* from;  // null: zeros
  size_t bytes;
  int group;
};
struct ThreadCopies {
  std::vector<PendingCopy> pending;
  int group = 0;
};
inline thread_local std::vector<ThreadCopies> copies;  // of the running block's threads
void FinishCopies(int groups_in_flight);

}  // namespace kvasir::emulation

// CUDA's own names.
#define threadIdx ::kvasir::emulation::thread_index
#define blockIdx ::kvasir::emulation::block_index
#define blockDim ::kvasir::emulation::block_size
#define gridDim ::kvasir::emulation::grid_size

namespace kvasir::cuda {

using Where = std::source_location;

inline emulation::Site SiteOf(const char* what, const Where& where) {
  return {what, where.file_name(), where.line()};
}
inline emulation::Block& ThisBlock() { return *emulation::Block::Current(); }

// ---- order of kernels
inline void AwaitEarlierKernels() { emulation::Block::AwaitEarlierKernels(); }
inline void LetNextBegin() {}

// ---- barriers and warp collectives
inline void SyncBlock(const Where& where = Where::current()) {
  ThisBlock().SyncBlock(SiteOf("SyncBlock", where));
}
inline void SyncWarp(const Where& where = Where::current()) {
  ThisBlock().SyncWarp(SiteOf("SyncWarp", where));
}

namespace detail {

// Each lane's output is the input of lane source(lane).
template <typename T, typename Source>
T Shuffle(const char* what, const Where& where, T value, const Source& source) {
  T result;
  ThisBlock().Collect(
      SiteOf(what, where), &value, &result, sizeof(T),
      [](const emulation::Block::Lanes& in, emulation::Block::Lanes& out, const void* argument) {
        const auto& from = *static_cast<const Source*>(argument);
        for (int lane = 0; lane < emulation::kWarp; ++lane) {
          std::memcpy(out[static_cast<size_t>(lane)].data(),
                      in[static_cast<size_t>(from(lane))].data(), sizeof(T));
        }
      },
      &source);
  return result;
}

template <typename T>
T LaneValue(const emulation::Block::Lanes& lanes, int lane, size_t index = 0) {
  T value;
  std::memcpy(&value, lanes[static_cast<size_t>(lane)].data() + index * sizeof(T), sizeof(T));
  return value;
}

}  // namespace detail

template <typename T>
T ShuffleXor(T value, int mask, const Where& where = Where::current()) {
  return detail::Shuffle("ShuffleXor", where, value, [mask](int lane) { return lane ^ mask; });
}
template <typename T>
T ShuffleFrom(T value, int source, const Where& where = Where::current()) {
  return detail::Shuffle("ShuffleFrom", where, value, [source](int) { return source; });
}
// From the lane `step` below; the lowest lanes get their own.
template <typename T>
T ShuffleUp(T value, int step, const Where& where = Where::current()) {
  return detail::Shuffle("ShuffleUp", where, value,
                         [step](int lane) { return lane < step ? lane : lane - step; });
}
// The butterfly of ShuffleXor in one collective.
template <typename T, typename Combine>
T ReduceWarp(T value, const Combine& combine, const Where& where = Where::current()) {
  ThisBlock().Collect(
      SiteOf("ReduceWarp", where), &value, &value, sizeof value,
      [](const emulation::Block::Lanes& in, emulation::Block::Lanes& out, const void* argument) {
        const auto& of_two = *static_cast<const Combine*>(argument);
        T values[emulation::kWarp], next[emulation::kWarp];
        for (int lane = 0; lane < emulation::kWarp; ++lane) {
          values[lane] = detail::LaneValue<T>(in, lane);
        }
        for (int mask = emulation::kWarp / 2; mask > 0; mask /= 2) {
          for (int i = 0; i < emulation::kWarp; ++i) next[i] = of_two(values[i], values[i ^ mask]);
          std::copy(next, next + emulation::kWarp, values);
        }
        for (int lane = 0; lane < emulation::kWarp; ++lane) {
          std::memcpy(out[static_cast<size_t>(lane)].data(), &values[lane], sizeof(T));
        }
      },
      &combine);
  return value;
}
inline bool AnyInWarp(bool vote, const Where& where = Where::current()) {
  bool result;
  ThisBlock().Collect(
      SiteOf("AnyInWarp", where), &vote, &result, sizeof vote,
      [](const emulation::Block::Lanes& in, emulation::Block::Lanes& out, const void*) {
        bool any = false;
        for (int lane = 0; lane < emulation::kWarp; ++lane) {
          any |= detail::LaneValue<bool>(in, lane);
        }
        for (auto& lane : out) std::memcpy(lane.data(), &any, sizeof any);
      },
      nullptr);
  return result;
}

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
V LoadAs(const Global<T>& from) {
  V value;
  std::memcpy(&value, from.Checked(from.raw(), sizeof(V), alignof(V)), sizeof(V));
  return value;
}
template <typename V, typename T>
V LoadOnce(const Global<T>& from) {
  V value;
  std::memcpy(&value, from.CheckedConstant(from.raw(), sizeof(V), alignof(V)), sizeof(V));
  return value;
}
template <typename V, typename T>
void StoreAs(const Global<T>& to, const V& value) {
  std::memcpy(to.Checked(to.raw(), sizeof(V), alignof(V)), &value, sizeof(V));
}
template <typename V, typename T>
V LoadShared(const Shared<T>& from) {
  const auto* const at = reinterpret_cast<const std::byte*>(from.raw());
  ThisBlock().Touch(at, sizeof(V), false);
  V value;
  std::memcpy(&value, at, sizeof(V));
  return value;
}
template <typename V, typename T>
void StoreShared(const Shared<T>& to, const V& value) {
  auto* const at = reinterpret_cast<std::byte*>(to.raw());
  ThisBlock().Touch(at, sizeof(V), true);
  std::memcpy(at, &value, sizeof(V));
}
template <typename T>
Shared<T> SharedAt(size_t offset) {
  return Shared<T>(reinterpret_cast<T*>(ThisBlock().shared() + offset));
}

// Ordered by barriers against everything but other AtomicAdds.
template <typename T>
void AtomicAdd(const Shared<T>& to, std::type_identity_t<T> value) {
  ThisBlock().TouchAtomic(reinterpret_cast<const std::byte*>(to.raw()), sizeof(T));
  *to.raw() += value;
}

// 16 bytes, there when WaitCopies says so; zeros if not `valid`, and nothing is read.
inline void CopyAsync16(const Shared<uint16_t>& to, const Global<const uint16_t>& from,
                        bool valid) {
  const uint16_t* const source = valid ? from.Checked(from.raw(), 16, 16) : nullptr;
  auto& mine = emulation::copies[static_cast<size_t>(ThisBlock().thread())];
  mine.pending.push_back({reinterpret_cast<std::byte*>(to.raw()), source, 16, mine.group});
}
inline void CommitCopies() { ++emulation::copies[static_cast<size_t>(ThisBlock().thread())].group; }
// Until at most `kInFlight` of this thread's committed groups are under way.
template <int kInFlight>
void WaitCopies() {
  emulation::FinishCopies(kInFlight);
}

// ---- matrices of 8 x 8 bf16 values: lane i names row i % 8 of matrix i / 8; a lane gets elements
// (lane / 4, 2 * (lane % 4) and the next) of each, or of its transpose.
void LoadMatrices(const emulation::Site& site, const Shared<uint16_t>& row, bool transposed,
                  uint32_t (&out)[4]);
inline void LoadMatrix4(const Shared<uint16_t>& row, uint32_t (&out)[4],
                        const Where& where = Where::current()) {
  LoadMatrices(SiteOf("LoadMatrix4", where), row, false, out);
}
inline void LoadMatrix4Transposed(const Shared<uint16_t>& row, uint32_t (&out)[4],
                                  const Where& where = Where::current()) {
  LoadMatrices(SiteOf("LoadMatrix4Transposed", where), row, true, out);
}
// c += a * b of a warp, 16 x 8 x 16 bf16: mma.m16n8k16's fragments.
void MultiplyFragments(const emulation::Site& site, float (&c)[4], const uint32_t (&a)[4],
                       uint32_t b0, uint32_t b1);
inline void MultiplyBf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                         const Where& where = Where::current()) {
  MultiplyFragments(SiteOf("MultiplyBf16", where), c, a, b0, b1);
}

// ---- numbers
inline float HalfToFloat(uint16_t bits) { return F16ToF32(bits); }
inline uint16_t FloatToBf16(float value) { return F32ToBF16(value); }
inline uint32_t PackBf16(float low, float high) {
  return F32ToBF16(low) | static_cast<uint32_t>(F32ToBF16(high)) << 16;
}
inline float BitsToFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t FloatToBits(float value) { return std::bit_cast<uint32_t>(value); }
// To nearest even; NaN is 0.
inline int RoundToInt(float value) {
  return std::isnan(value) ? 0 : static_cast<int>(std::nearbyint(value));
}
// Four int8 values as bf16, exactly: the first two in `low`.
inline void WidenInt8(uint32_t four, uint32_t& low, uint32_t& high) {
  const auto value = [four](int i) { return static_cast<float>(int8_t(four >> (8 * i))); };
  low = PackBf16(value(0), value(1));
  high = PackBf16(value(2), value(3));
}
inline float Fma(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float Exp(float x) { return std::exp(x); }
inline float Exp2(float x) { return std::exp2(x); }
inline float Log2(float x) { return std::log2(x); }
inline float Erfc(float x) { return std::erfc(x); }
inline float Sqrt(float x) { return std::sqrt(x); }
inline float Infinity() { return std::numeric_limits<float>::infinity(); }
inline float Max(float a, float b) { return std::fmax(a, b); }

// ---- launches
using Stream = void*;

struct LaunchShape {
  unsigned blocks_x = 1, blocks_y = 1, threads = 32;
  size_t shared_bytes = 0;
};

namespace detail {
void RunGrid(const LaunchShape& shape, const std::function<void()>& body);
}

// The parameters are made once, as CUDA copies them once, and each thread gets its copy.
template <typename... P, typename... A>
Status Launch(Stream stream, const LaunchShape& shape, void (*kernel)(P...), A&&... arguments) {
  KVASIR_RETURN_IF_ERROR(emulation::TakeLaunchFailure());
  emulation::CountLaunch();
  const std::tuple<P...> parameters(std::forward<A>(arguments)...);
  emulation::QueueWork(stream, [shape, kernel, parameters] {
    detail::RunGrid(shape, [&] { std::apply(kernel, parameters); });
  });
  return Status::Ok();
}

}  // namespace kvasir::cuda
