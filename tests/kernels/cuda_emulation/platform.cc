#include "tests/kernels/cuda_emulation/platform.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>

namespace kvasir::emulation {
namespace {

std::atomic<uint64_t> seed{1};
std::mutex failure_mutex;
Status failure;
std::atomic<size_t> launches{0};

}  // namespace

void SetSeed(uint64_t value) { seed = value; }
uint64_t NextSeed() { return seed.fetch_add(0x9E3779B97F4A7C15u); }

void FailNextLaunch(Status status) {
  const std::lock_guard lock(failure_mutex);
  failure = std::move(status);
}
Status TakeLaunchFailure() {
  const std::lock_guard lock(failure_mutex);
  return std::exchange(failure, Status::Ok());
}

size_t LaunchesSoFar() { return launches; }
void CountLaunch() { ++launches; }

void FinishCopies(int groups_in_flight) {
  Block& block = *Block::Current();
  ThreadCopies& mine = copies[static_cast<size_t>(block.thread())];
  const int up_to = mine.group - groups_in_flight;
  auto rest = mine.pending.begin();
  for (; rest != mine.pending.end() && rest->group < up_to; ++rest) {
    block.Touch(rest->to, rest->bytes, true);
    if (rest->from == nullptr) {
      std::memset(rest->to, 0, rest->bytes);
    } else {
      std::memcpy(rest->to, rest->from, rest->bytes);
    }
  }
  mine.pending.erase(mine.pending.begin(), rest);
}

}  // namespace kvasir::emulation

namespace kvasir::cuda {
namespace {

using emulation::Block;
using emulation::kWarp;

struct Halves {
  uint16_t values[8];
};

uint32_t Pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

// in: row addresses' contents; out: four registers a lane.
void Distribute(const Block::Lanes& in, Block::Lanes& out, const void* argument) {
  const bool transposed = *static_cast<const bool*>(argument);
  for (int lane = 0; lane < kWarp; ++lane) {
    const int row = lane / 4, col = 2 * (lane % 4);
    uint32_t words[4];
    for (int m = 0; m < 4; ++m) {
      const auto at = [&](int r, int c) {
        return detail::LaneValue<Halves>(in, 8 * m + r).values[c];
      };
      words[m] =
          transposed ? Pair(at(col, row), at(col + 1, row)) : Pair(at(row, col), at(row, col + 1));
    }
    std::memcpy(out[static_cast<size_t>(lane)].data(), words, sizeof words);
  }
}

struct Fragments {
  uint32_t a[4], b[2];
  float c[4];
};

float Low(uint32_t word) { return BF16ToF32(static_cast<uint16_t>(word)); }
float High(uint32_t word) { return BF16ToF32(static_cast<uint16_t>(word >> 16)); }

// The fragments as matrices; PTX ISA, mma.m16n8k16 with .bf16.
void Multiply(const Block::Lanes& in, Block::Lanes& out, const void*) {
  float a[16][16], b[16][8], c[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const auto f = detail::LaneValue<Fragments>(in, lane);
    const int row = lane / 4, pair = 2 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      a[row + 8 * (i % 2)][pair + 8 * (i / 2)] = Low(f.a[i]);
      a[row + 8 * (i % 2)][pair + 8 * (i / 2) + 1] = High(f.a[i]);
      c[row + 8 * (i / 2)][pair + i % 2] = f.c[i];
    }
    for (int i = 0; i < 2; ++i) {
      b[pair + 8 * i][row] = Low(f.b[i]);
      b[pair + 8 * i + 1][row] = High(f.b[i]);
    }
  }
  for (int i = 0; i < 16; ++i) {
    for (int k = 0; k < 16; ++k) {
      for (int j = 0; j < 8; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    const int row = lane / 4, pair = 2 * (lane % 4);
    const float mine[4] = {c[row][pair], c[row][pair + 1], c[row + 8][pair], c[row + 8][pair + 1]};
    std::memcpy(out[static_cast<size_t>(lane)].data(), mine, sizeof mine);
  }
}

}  // namespace

void LoadMatrices(const emulation::Site& site, const Shared<uint16_t>& row, bool transposed,
                  uint32_t (&out)[4]) {
  Block& block = ThisBlock();
  if (reinterpret_cast<uintptr_t>(row.raw()) % 16 != 0) {
    emulation::Fault("%s: a row is not aligned to 16 bytes", site.what);
  }
  block.Touch(reinterpret_cast<const std::byte*>(row.raw()), 16, false);
  block.Collect(site, row.raw(), out, 16, &Distribute, &transposed);
}

void MultiplyFragments(const emulation::Site& site, float (&c)[4], const uint32_t (&a)[4],
                       uint32_t b0, uint32_t b1) {
  Fragments mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}};
  ThisBlock().Collect(site, &mine, &mine, sizeof mine, &Multiply, nullptr);
  std::memcpy(c, &mine, 4 * sizeof(float));
}

namespace detail {

void RunGrid(const LaunchShape& shape, const std::function<void()>& body) {
  using namespace emulation;
  const auto threads = static_cast<int>(shape.threads);
  if (shape.blocks_x == 0 || shape.blocks_y == 0) Fault("a launch of no blocks");
  Block block(threads, shape.shared_bytes, NextSeed());
  block_size = {shape.threads, 1, 1};
  grid_size = {shape.blocks_x, shape.blocks_y, 1};
  std::vector<uint32_t> order(shape.blocks_x * shape.blocks_y);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), OrderBits(NextSeed()));
  const auto enter = [](int thread) { thread_index = {static_cast<unsigned>(thread), 0, 0}; };
  for (const uint32_t index : order) {
    block_index = {index % shape.blocks_x, index / shape.blocks_x, 0};
    copies.assign(static_cast<size_t>(threads), {});
    block.Run(body, enter);
    for (const ThreadCopies& mine : copies) {
      if (!mine.pending.empty()) Fault("a thread ended before its copies did");
    }
  }
}

}  // namespace detail
}  // namespace kvasir::cuda
