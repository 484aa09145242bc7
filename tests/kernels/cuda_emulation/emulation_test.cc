// The emulation itself: that kernels get right what CUDA gets right, and that it finds what CUDA
// would let pass by: missing and divergent barriers, accesses out of bounds, unfinished copies.
#include <gtest/gtest.h>

#include <csignal>
#include <numeric>
#include <vector>

#include "tests/kernels/cuda_emulation/platform.h"

namespace kvasir::cuda {
namespace {

// A device buffer with its contents.
template <typename T>
class Filled {
 public:
  explicit Filled(const std::vector<T>& values)
      : size_(values.size()), data_(static_cast<T*>(emulation::AllocateDevice(size_ * sizeof(T)))) {
    std::copy(values.begin(), values.end(), Behind());
  }
  ~Filled() { emulation::FreeDevice(data_); }
  T* data() const { return data_; }
  std::vector<T> values() const { return {Behind(), Behind() + size_}; }

 private:
  T* Behind() const { return reinterpret_cast<T*>(emulation::ExtentOf(data_).Behind(data_)); }

  size_t size_;
  T* data_;
};

std::vector<float> Iota(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

// Sum of a block's values through shared memory; without its barriers, wrong.
__global__ void SumKernel(Global<const float> in, Global<float> out, bool barrier, bool end) {
  AwaitEarlierKernels();
  const auto shared = SharedAt<float>(0);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  shared[thread] = in[static_cast<int>(blockIdx.x) * threads + thread];
  if (barrier) SyncBlock();
  for (int half = threads / 2; half > 0; half /= 2) {
    if (thread < half) shared[thread] = shared[thread] + shared[thread + half];
    if (barrier) SyncBlock();
  }
  if (thread == 0) out[static_cast<int>(blockIdx.x) + (end ? 1 : 0)] = shared[0];
}

std::vector<float> Sums(bool barrier, bool end = false) {
  const Filled<float> in(Iota(3 * 64)), out({0, 0, 0});
  const LaunchShape shape = {3, 1, 64, 64 * sizeof(float)};
  EXPECT_TRUE(Launch(nullptr, shape, SumKernel, in.data(), out.data(), barrier, end).ok());
  return out.values();
}

TEST(CudaEmulation, BlocksSumThroughSharedMemory) {
  for (uint64_t seed = 1; seed < 20; ++seed) {
    emulation::SetSeed(seed);
    EXPECT_EQ(Sums(true), (std::vector<float>{2080, 6176, 10272}));
  }
}

TEST(CudaEmulationDeathTest, MissingBarrierIsARace) { EXPECT_DEATH(Sums(false), "race: thread"); }

TEST(CudaEmulationDeathTest, AccessBehindABuffer) {
  EXPECT_DEATH(Sums(true, true), "out of bounds: 4 bytes at 12 of a buffer of 12");
}

__global__ void OffsetKernel(Global<const float> in, Global<float> out, int offset, bool wide) {
  AwaitEarlierKernels();
  if (wide) {
    out[0] = LoadAs<Vec4>(in + offset).x;
  } else {
    out[0] = in[offset];
  }
}

void ReadAt(int offset, bool wide) {
  // Two buffers side by side: an access may not stray from one into the other.
  const Filled<float> in(Iota(64)), out({0}), next(Iota(64));
  const auto status = Launch(nullptr, {}, OffsetKernel, in.data(), out.data(), offset, wide);
  EXPECT_TRUE(status.ok());
}

TEST(CudaEmulationDeathTest, ReadsOutsideAndUnaligned) {
  ReadAt(63, false);
  ReadAt(60, true);
  EXPECT_DEATH(ReadAt(-1, false), "out of bounds: 4 bytes at -4");
  EXPECT_DEATH(ReadAt(64, false), "out of bounds");
  EXPECT_DEATH(ReadAt(64 + 64, false), "out of bounds");
  EXPECT_DEATH(ReadAt(61, true), "out of bounds: 16 bytes at 244 of a buffer of 256");
  EXPECT_DEATH(ReadAt(2, true), "not aligned");
}

TEST(CudaEmulationDeathTest, HostMemoryIsNotDeviceMemory) {
  std::vector<float> host(4);
  EXPECT_DEATH(
      EXPECT_TRUE(Launch(nullptr, {}, OffsetKernel, host.data(), host.data(), 0, false).ok()),
      "is not device memory");
}

TEST(CudaEmulationDeathTest, TheHostCannotTouchDeviceMemory) {
  const Filled<float> buffer({1});
  const volatile float* const device = buffer.data();
  EXPECT_EXIT([[maybe_unused]] const float seen = device[0], testing::KilledBySignal(SIGSEGV), "");
}

__global__ void SharedEndKernel(int index) {
  AwaitEarlierKernels();
  SharedAt<float>(0)[index] = 1;
}

TEST(CudaEmulationDeathTest, AccessBehindSharedMemory) {
  EXPECT_DEATH(EXPECT_TRUE(Launch(nullptr, {1, 1, 32, 64}, SharedEndKernel, 16).ok()),
               "writes shared memory at 64, 4 bytes, of 64");
}

// kind 0: half the threads leave before a barrier; 1: they wait at another; 2: one lane misses a
// shuffle.
__global__ void DivergentKernel(int kind) {
  AwaitEarlierKernels();
  const int thread = static_cast<int>(threadIdx.x);
  if (kind == 0 && thread >= 32) return;
  if (kind == 1 && thread >= 32) {
    SyncBlock();
  } else if (kind < 2) {
    SyncBlock();
  }
  if (kind == 2 && thread != 7) ShuffleXor(1.0f, 1);
}

void Diverge(int kind) { EXPECT_TRUE(Launch(nullptr, {1, 1, 64, 0}, DivergentKernel, kind).ok()); }

TEST(CudaEmulationDeathTest, DivergentBarriers) {
  EXPECT_DEATH(Diverge(0), "waits for ever at SyncBlock .*32 of 64 threads have ended");
  EXPECT_DEATH(Diverge(1), "divergent barrier: thread");
  EXPECT_DEATH(Diverge(2), "waits for ever at ShuffleXor");
}

// Lanes of a warp exchange through shared memory, ordered by SyncWarp or by a mere shuffle.
__global__ void WarpExchangeKernel(Global<float> out, bool barrier) {
  AwaitEarlierKernels();
  const auto shared = SharedAt<float>(0);
  const int lane = static_cast<int>(threadIdx.x);
  shared[lane] = static_cast<float>(lane);
  if (barrier) {
    SyncWarp();
  } else {
    ShuffleXor(0, 1);
  }
  out[lane] = shared[31 - lane];
}

std::vector<float> Exchange(bool barrier) {
  const Filled<float> out(std::vector<float>(32));
  const LaunchShape shape = {1, 1, 32, 32 * sizeof(float)};
  EXPECT_TRUE(Launch(nullptr, shape, WarpExchangeKernel, out.data(), barrier).ok());
  return out.values();
}

TEST(CudaEmulationDeathTest, SyncWarpOrdersAndShufflesDoNot) {
  EXPECT_EQ(Exchange(true)[3], 28);
  EXPECT_DEATH(Exchange(false), "race: thread");
}

__global__ void CollectivesKernel(Global<float> out) {
  AwaitEarlierKernels();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float sum = static_cast<float>(threadIdx.x);
  for (int mask = 16; mask > 0; mask /= 2) sum += ShuffleXor(sum, mask);
  const float first = ShuffleFrom(static_cast<float>(threadIdx.x), 0);
  const bool any = AnyInWarp(lane == 5 && threadIdx.x > 32);
  out[static_cast<int>(threadIdx.x)] = sum + 10000 * first + (any ? 0.5f : 0);
}

TEST(CudaEmulation, WarpCollectives) {
  const Filled<float> out(std::vector<float>(64));
  EXPECT_TRUE(Launch(nullptr, {1, 1, 64, 0}, CollectivesKernel, out.data()).ok());
  for (size_t i = 0; i < 64; ++i) {
    ASSERT_EQ(out.values()[i], i < 32 ? 496 : 1520 + 320000 + 0.5f);
  }
}

// Copies that nobody waits for are not there; memory nobody wrote is NaN.
__global__ void CopyKernel(Global<const uint16_t> in, Global<uint16_t> out, bool wait) {
  AwaitEarlierKernels();
  const auto shared = SharedAt<uint16_t>(0);
  const int lane = static_cast<int>(threadIdx.x);
  CopyAsync16(shared + 8 * lane, in + 8 * lane, lane != 3);
  CommitCopies();
  if (wait) WaitCopies<0>();
  SyncWarp();
  for (int i = 0; i < 8; ++i) out[8 * lane + i] = shared[8 * (31 - lane) + i];
  if (!wait) WaitCopies<0>();
}

TEST(CudaEmulation, CopiesArriveWhenWaitedFor) {
  std::vector<uint16_t> values(256);
  std::iota(values.begin(), values.end(), 0);
  const Filled<uint16_t> in(values), out(std::vector<uint16_t>(256));
  const LaunchShape shape = {1, 1, 32, 512};
  EXPECT_TRUE(Launch(nullptr, shape, CopyKernel, in.data(), out.data(), true).ok());
  EXPECT_EQ(out.values()[9], 30 * 8 + 1);
  EXPECT_EQ(out.values()[28 * 8], 0);  // not valid: zeros
}

TEST(CudaEmulationDeathTest, ReadingBeforeACopyArrives) {
  // The copies land in what others have read: a race, in whatever order.
  const Filled<uint16_t> in(std::vector<uint16_t>(256)), out(std::vector<uint16_t>(256));
  const LaunchShape shape = {1, 1, 32, 512};
  EXPECT_DEATH(EXPECT_TRUE(Launch(nullptr, shape, CopyKernel, in.data(), out.data(), false).ok()),
               "race");
}

// c[16][8] = a[16][16] * b[16][8] through shared memory, b as [n][k] or, transposed, as [k][n].
__global__ void MatrixKernel(Global<const uint16_t> a, Global<const uint16_t> b, Global<float> c,
                             bool transposed) {
  AwaitEarlierKernels();
  const auto sa = SharedAt<uint16_t>(0), sb = SharedAt<uint16_t>(512);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) sa[i] = a[i];
  for (int i = lane; i < 256; i += 32) sb[i] = b[i];
  SyncWarp();
  uint32_t fa[4], fb[4];
  LoadMatrix4(sa + (lane % 16) * 16 + lane / 16 * 8, fa);
  if (transposed) {
    LoadMatrix4Transposed(sb + (lane % 16) * 16 + lane / 16 * 8, fb);
  } else {
    LoadMatrix4(sb + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8, fb);
  }
  float sum[4] = {0, 0, 0, 0};
  MultiplyBf16(sum, fa, fb[0], fb[1]);
  for (int i = 0; i < 4; ++i) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

TEST(CudaEmulation, MatrixProductOfAWarp) {
  std::vector<uint16_t> a(256), b(256), bt(256);
  for (int i = 0; i < 256; ++i) {
    a[static_cast<size_t>(i)] = F32ToBF16(static_cast<float>(i % 7 - 3));
    b[static_cast<size_t>(i)] = F32ToBF16(static_cast<float>(i % 11 - 5));
    bt[static_cast<size_t>(i % 16 * 16 + i / 16)] = b[static_cast<size_t>(i)];
  }
  for (const bool transposed : {false, true}) {
    const Filled<uint16_t> da(a), db(transposed ? bt : b);
    const Filled<float> c(std::vector<float>(128));
    const LaunchShape shape = {1, 1, 32, 1024};
    EXPECT_TRUE(
        Launch(nullptr, shape, MatrixKernel, da.data(), db.data(), c.data(), transposed).ok());
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        float want = 0;
        for (int k = 0; k < 16; ++k) {
          want +=
              static_cast<float>((m * 16 + k) % 7 - 3) * static_cast<float>((n * 16 + k) % 11 - 5);
        }
        ASSERT_EQ(c.values()[static_cast<size_t>(m * 8 + n)], want) << m << " " << n;
      }
    }
  }
}

// Every thread adds to a few shared counters; `barrier` before they are read.
__global__ void CountKernel(Global<uint32_t> out, bool barrier, bool plain) {
  AwaitEarlierKernels();
  const auto counts = SharedAt<uint64_t>(0);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < 4) counts[thread] = 0;
  SyncBlock();
  AtomicAdd(counts + thread % 4, static_cast<uint64_t>(thread));
  if (plain && thread == 40) counts[0] = 1;
  if (barrier) SyncBlock();
  if (thread < 4) out[thread] = static_cast<uint32_t>(counts[thread]);
}

TEST(CudaEmulation, AtomicAdditions) {
  const LaunchShape shape = {1, 1, 64, 4 * sizeof(uint64_t)};
  const Filled<uint32_t> out(std::vector<uint32_t>(4));
  for (uint64_t seed = 1; seed < 10; ++seed) {
    emulation::SetSeed(seed);
    EXPECT_TRUE(Launch(nullptr, shape, CountKernel, out.data(), true, false).ok());
    EXPECT_EQ(out.values(), (std::vector<uint32_t>{480, 496, 512, 528}));
  }
}

void Count(bool barrier, bool plain) {
  const Filled<uint32_t> out(std::vector<uint32_t>(4));
  const LaunchShape shape = {1, 1, 64, 4 * sizeof(uint64_t)};
  EXPECT_TRUE(Launch(nullptr, shape, CountKernel, out.data(), barrier, plain).ok());
}

TEST(CudaEmulationDeathTest, AtomicAdditionsRaceWithOtherAccesses) {
  EXPECT_DEATH(Count(false, false), "race: thread");
  EXPECT_DEATH(Count(true, true), "race: thread");
}

__global__ void ScanKernel(Global<uint32_t> out) {
  AwaitEarlierKernels();
  uint32_t value = 1;
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t before = ShuffleUp(value, step);
    if (static_cast<int>(threadIdx.x) >= step) value += before;
  }
  out[threadIdx.x] = value;
}

TEST(CudaEmulation, ShufflesUp) {
  const Filled<uint32_t> out(std::vector<uint32_t>(32));
  EXPECT_TRUE(Launch(nullptr, {}, ScanKernel, out.data()).ok());
  for (uint32_t i = 0; i < 32; ++i) EXPECT_EQ(out.values()[i], i + 1);
}

// What a thread does before it has awaited earlier kernels; two of the warp, for the end.
enum class Early { kConstant, kRead, kWideRead, kWrite, kCopy, kEnd };

__global__ void EarlyKernel(Global<uint16_t> data, Early early) {
  uint32_t constant = 0;
  if (early == Early::kConstant) constant = LoadOnce<uint32_t>(data);
  if (early == Early::kRead) constant = data[0];
  if (early == Early::kWideRead) constant = LoadAs<uint32_t>(data);
  if (early == Early::kWrite) StoreAs(data, constant);
  if (early == Early::kCopy) CopyAsync16(SharedAt<uint16_t>(0), data, true);
  if (early == Early::kEnd && threadIdx.x / 2 == 5) return;
  LetNextBegin();
  AwaitEarlierKernels();
  if (threadIdx.x == 0) data[7] = static_cast<uint16_t>(constant);
}

uint16_t RunEarly(Early early) {
  const Filled<uint16_t> data({3, 0, 0, 0, 0, 0, 0, 0});
  EXPECT_TRUE(Launch(nullptr, {1, 1, 32, 16}, EarlyKernel, data.data(), early).ok());
  return data.values()[7];
}

TEST(CudaEmulationDeathTest, EarlierKernelsAreAwaitedBeforeAllButConstants) {
  EXPECT_EQ(RunEarly(Early::kConstant), 3);
  for (const Early early : {Early::kRead, Early::kWideRead, Early::kWrite, Early::kCopy}) {
    EXPECT_DEATH(RunEarly(early),
                 "thread .* touches global memory and has not called AwaitEarlierKernels");
  }
}

TEST(CudaEmulationDeathTest, EveryThreadAwaitsEarlierKernels) {
  EXPECT_DEATH(RunEarly(Early::kEnd), "thread 1[01] ends and has not called AwaitEarlierKernels");
}

TEST(CudaEmulation, LaunchesAndAllocationsCanBeMadeToFail) {
  emulation::FailNextLaunch(Internal("lost"));
  EXPECT_EQ(Launch(nullptr, {}, SharedEndKernel, 0).code(), StatusCode::kInternal);
  emulation::LimitDeviceMemory(emulation::DeviceBytesInUse() + 1000);
  EXPECT_EQ(emulation::AllocateDevice(1001), nullptr);
  void* fits = emulation::AllocateDevice(1000);
  EXPECT_NE(fits, nullptr);
  emulation::FreeDevice(fits);
  emulation::LimitDeviceMemory(SIZE_MAX);
}

}  // namespace
}  // namespace kvasir::cuda
