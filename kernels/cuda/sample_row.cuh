// One row of logits under a block of threads that draws from it: keys that order logits, weights as
// integers, and two searches, both in passes over the row.
//
// Weights are 2^((logit - max) * log2(e) / temperature) in units of 2^-40: sums of integers are the
// same in every order, so that a cut and a draw depend on the row alone, and no pass disagrees with
// another. What weighs less than a unit is never drawn; all of a row's lost weight is below 2^-17
// of the heaviest even at 2^22 tokens.
#pragma once

#include "kernels/cuda/rows.cuh"

namespace kvasir::cuda {

constexpr int kSampleThreads = 512;
constexpr int kSampleWarps = kSampleThreads / 32;
constexpr int kBins = 1024;
constexpr int kBinsAThread = kBins / kSampleThreads;
constexpr float kUnits = 0x1p40f, kLog2Units = 40.0f;

// Shared memory.
constexpr size_t kMassesAt = 0;                                            // u64 [kBins]
constexpr size_t kCountsAt = kMassesAt + kBins * sizeof(uint64_t);         // u32 [kBins]
constexpr size_t kSumsAt = kCountsAt + kBins * sizeof(uint32_t);           // u64 [warps]
constexpr size_t kCrossingAt = kSumsAt + kSampleWarps * sizeof(uint64_t);  // u64 [4]
constexpr size_t kSampleSharedBytes = kCrossingAt + 4 * sizeof(uint64_t);

// Higher logits have higher keys, equal ones (both zeros too) the same. NaN and +infinity share the
// highest.
constexpr uint32_t kNoKey = 0xFFFFFFFFu, kMinusInfinityKey = 0x007FFFFFu;
__device__ __forceinline__ uint32_t KeyOf(float logit) {
  if (!(logit < Infinity())) return kNoKey;
  const uint32_t bits = FloatToBits(logit + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float LogitOf(uint32_t key) {
  return BitsToFloat((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

struct SampleRow {
  Global<const float> logits = nullptr;
  int64_t vocab = 0;
  bool aligned = false;
  float max = 0, factor = 0;  // log2(e) / temperature

  // Of the weight, in units of log 2; 0 for the heaviest.
  __device__ __forceinline__ float Exponent(float logit) const { return (logit - max) * factor; }
  __device__ __forceinline__ float Weight(float logit) const { return Exp2(Exponent(logit)); }
  __device__ __forceinline__ uint64_t Units(float weight) const {
    return static_cast<uint64_t>(weight * kUnits);
  }
};

// visit(id, logit) for the quads begin + thread, + threads, ... before `end`.
template <typename Visit>
__device__ __forceinline__ void ForEachLogit(const SampleRow& row, int64_t begin, int64_t end,
                                             int thread, int threads, const Visit& visit) {
#pragma unroll 4
  for (int64_t quad = begin + thread; quad < end; quad += threads) {
    const Vec4 v = LoadQuad(row.logits, row.vocab, row.aligned, quad);
    const auto id = static_cast<int32_t>(4 * quad);
    visit(id, v.x);
    if (id + 1 < row.vocab) visit(id + 1, v.y);
    if (id + 2 < row.vocab) visit(id + 2, v.z);
    if (id + 3 < row.vocab) visit(id + 3, v.w);
  }
}

__device__ __forceinline__ uint64_t WarpTotal(uint64_t value) {
  return ReduceWarp(value, [](uint64_t a, uint64_t b) { return a + b; });
}
// Sum of this lane's and the lanes' before it.
__device__ __forceinline__ uint64_t WarpScan(uint64_t value) {
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t before = ShuffleUp(value, step);
    if (static_cast<int>(threadIdx.x) % 32 >= step) value += before;
  }
  return value;
}

// ---- the id at which a running sum passes a target
// value(id, logit) -> u64, summed in order of ids; the first id whose sum is greater than
// target(total) < total. All threads get it.
//
// The row is cut into a part a warp and summed; the part that holds the target is cut again, until
// a part is what a warp reads at once.
template <typename Value, typename Target>
__device__ __forceinline__ int32_t FindId(const SampleRow& row, const Value& value,
                                          const Target& target) {
  const Shared<uint64_t> sums = SharedAt<uint64_t>(kSumsAt);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  int64_t begin = 0, end = QuadsOf(row.vocab);
  uint64_t left = 0;
  bool first = true;
  while (true) {
    const int64_t part = (end - begin + 32 * kSampleWarps - 1) / (32 * kSampleWarps) * 32;
    const int64_t from = begin + warp * part;
    uint64_t sum = 0;
    ForEachLogit(row, from, from + part < end ? from + part : end, lane, 32,
                 [&](int32_t id, float logit) { sum += value(id, logit); });
    sum = WarpTotal(sum);
    SyncBlock();  // earlier sums have been read
    if (lane == 0) sums[warp] = sum;
    SyncBlock();
    if (first) {
      uint64_t total = 0;
      for (int i = 0; i < kSampleWarps; ++i) total += sums[i];
      left = target(total);
      first = false;
    }
    int found = 0;
    while (found + 1 < kSampleWarps) {
      const uint64_t here = sums[found];
      if (left < here) break;
      left -= here;
      ++found;
    }
    begin += found * part;
    end = begin + part < end ? begin + part : end;
    if (part == 32) break;
  }
  // Every warp by itself: a quad a lane.
  uint64_t sum = 0;
  ForEachLogit(row, begin, end, lane, 32,
               [&](int32_t id, float logit) { sum += value(id, logit); });
  uint64_t before = WarpScan(sum) - sum;
  int32_t found = -1;
  ForEachLogit(row, begin, end, lane, 32, [&](int32_t id, float logit) {
    before += value(id, logit);
    if (found < 0 && before > left && before - value(id, logit) <= left) found = id;
  });
  return ReduceWarp(found, [](int32_t a, int32_t b) { return a > b ? a : b; });
}

// ---- the heaviest tokens that together reach a target
// Tokens kept: keys above `key`, and of those with that key the ids below tie_end.
struct Cut {
  uint32_t key = 0;
  int32_t tie_end = 0;
};
__device__ __forceinline__ bool Keeps(const Cut& cut, uint32_t key, int32_t id) {
  return key > cut.key || (key == cut.key && id < cut.tie_end);
}

// Bins, those of higher keys first: of equal width in the exponent at first, in keys within such a
// bin. Both orders are those of the keys, so that a bin is an interval of keys [low, high).
struct Bins {
  bool by_exponent = true;
  uint32_t low = 0, high = 0;  // of all bins
  uint32_t width = 0;

  __device__ __forceinline__ int Of(const SampleRow& row, uint32_t key) const {
    if (!by_exponent) return static_cast<int>((high - 1 - key) / width);
    const float bin = row.Exponent(LogitOf(key)) * (-kBins / kLog2Units);
    return bin < kBins - 1 ? static_cast<int>(bin) : kBins - 1;
  }
  // The lowest key of bins 0..bin.
  __device__ __forceinline__ uint32_t LowOf(const SampleRow& row, int bin) const {
    if (bin < 0) return high;
    if (!by_exponent) {
      const uint32_t down = static_cast<uint32_t>(bin + 1) * width;
      return high - low > down ? high - down : low;
    }
    uint32_t outside = low, inside = high - 1;  // the heaviest is in bin 0
    if (Of(row, low) <= bin) return low;
    while (inside - outside > 1) {
      const uint32_t middle = outside + (inside - outside) / 2;
      (Of(row, middle) <= bin ? inside : outside) = middle;
    }
    return inside;
  }
  __device__ __forceinline__ Bins Within(const SampleRow& row, int bin) const {
    Bins b;
    b.by_exponent = false;
    b.low = LowOf(row, bin);
    b.high = LowOf(row, bin - 1);
    b.width = (b.high - b.low + kBins - 1) / kBins;
    return b;
  }
};

// Where the running measure of the bins reaches `need`; bin -1 = nowhere.
struct Crossing {
  int bin = -1;
  uint64_t before = 0;  // measure of the bins before
  uint64_t mass = 0, count = 0;
};

__device__ __forceinline__ void ClearBins() {
  const Shared<uint64_t> masses = SharedAt<uint64_t>(kMassesAt);
  const Shared<uint32_t> counts = SharedAt<uint32_t>(kCountsAt);
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kSampleThreads) {
    masses[i] = 0;
    counts[i] = 0;
  }
}

__device__ __forceinline__ void FillBins(const SampleRow& row, const Cut& within,
                                         const Bins& bins) {
  const Shared<uint64_t> masses = SharedAt<uint64_t>(kMassesAt);
  const Shared<uint32_t> counts = SharedAt<uint32_t>(kCountsAt);
  ForEachLogit(row, 0, QuadsOf(row.vocab), static_cast<int>(threadIdx.x), kSampleThreads,
               [&](int32_t id, float logit) {
                 const uint32_t key = KeyOf(logit);
                 if (key < bins.low || key >= bins.high || !Keeps(within, key, id)) return;
                 const uint64_t units = row.Units(row.Weight(logit));
                 if (units == 0) return;
                 const int bin = bins.Of(row, key);
                 AtomicAdd(masses + bin, units);
                 AtomicAdd(counts + bin, 1u);
               });
}

// need(total measure) -> u64 > 0. by_mass: the measure is mass, else count.
template <typename Need>
__device__ __forceinline__ Crossing FindCrossing(bool by_mass, const Need& need) {
  const Shared<uint64_t> masses = SharedAt<uint64_t>(kMassesAt), sums = SharedAt<uint64_t>(kSumsAt);
  const Shared<uint64_t> crossing = SharedAt<uint64_t>(kCrossingAt);
  const Shared<uint32_t> counts = SharedAt<uint32_t>(kCountsAt);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const auto measure = [&](int bin) {
    return by_mass ? static_cast<uint64_t>(masses[bin]) : uint64_t{counts[bin]};
  };
  uint64_t own = 0;
  for (int i = 0; i < kBinsAThread; ++i) own += measure(thread * kBinsAThread + i);
  const uint64_t scan = WarpScan(own);
  if (thread % 32 == 31) sums[warp] = scan;
  if (thread == 0) crossing[0] = kBins;
  SyncBlock();
  uint64_t before = scan - own, total = 0;
  for (int i = 0; i < kSampleWarps; ++i) {
    const uint64_t sum = sums[i];
    if (i < warp) before += sum;
    total += sum;
  }
  const uint64_t needed = need(total);
  for (int i = 0; i < kBinsAThread; ++i) {
    const int bin = thread * kBinsAThread + i;
    const uint64_t here = measure(bin);
    if (before < needed && needed <= before + here) {
      crossing[0] = static_cast<uint64_t>(bin);
      crossing[1] = before;
      crossing[2] = masses[bin];
      crossing[3] = counts[bin];
    }
    before += here;
  }
  SyncBlock();
  Crossing found;
  const uint64_t bin = crossing[0];
  if (bin < kBins) found = {static_cast<int>(bin), crossing[1], crossing[2], crossing[3]};
  SyncBlock();  // bins and sums may be written again
  return found;
}

// The shortest run of tokens kept by `within`, heaviest first and lowest id first among equals,
// whose measure reaches need(total); `within` if all of them do not.
template <typename Need>
__device__ __forceinline__ Cut FindCut(const SampleRow& row, const Cut& within, bool by_mass,
                                       const Need& need) {
  Bins bins;
  bins.low = kMinusInfinityKey + 1;
  bins.high = KeyOf(row.max) + 1;
  uint64_t target = 0, above = 0;
  while (true) {
    ClearBins();
    SyncBlock();
    FillBins(row, within, bins);
    SyncBlock();
    const Crossing crossing = FindCrossing(by_mass, [&](uint64_t total) {
      if (target == 0) target = need(total);
      return target - above;
    });
    if (crossing.bin < 0) return within;
    bins = bins.Within(row, crossing.bin);
    above += crossing.before;
    const uint64_t measure = by_mass ? crossing.mass : crossing.count;
    const bool whole = crossing.count == 1 || above + measure == target;
    if (!whole && bins.high - bins.low > 1) continue;
    const uint32_t key = bins.low;
    if (!whole) {  // equal logits: the first of them that suffice
      const uint64_t each = measure / crossing.count;
      const uint64_t kept = (target - above + each - 1) / each;
      if (kept < crossing.count) {
        const int32_t last = FindId(
            row,
            [&](int32_t id, float logit) {
              return uint64_t{KeyOf(logit) == key && Keeps(within, key, id)};
            },
            [&](uint64_t) { return kept - 1; });
        return {key, last + 1};
      }
    }
    return key > within.key ? Cut{key, static_cast<int32_t>(row.vocab)} : within;
  }
}

}  // namespace kvasir::cuda
