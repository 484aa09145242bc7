// Tiles of keys and values as the matrix-unit kernel takes them: from the pool into shared memory,
// and from there as operands, for bf16 and int8 pools. A warp has 16 lanes, queries [16][D] in
// bf16.
#pragma once

#include "kernels/cuda/attention_common.cuh"

namespace kvasir::cuda {

inline constexpr int kStages = 2;

// Which keys of a piece some lane of the block sees.
struct TileView {
  Piece piece;
  int first;  // key of the piece where the tile begins
  int32_t first_position, last_position, window;

  // Whether one of `keys` keys from `key` of the tile on is seen.
  __device__ __forceinline__ bool Seen(int key, int keys) const {
    const int32_t position = piece.base + piece.first_key + first + key;
    return first + key < piece.keys && position <= last_position &&
           (window == 0 || position + keys - 1 > first_position - window);
  }
};

// Where the 16-byte piece `piece` of a row lies in a tile whose pieces are swapped as in the pool.
template <int kD>
__device__ __forceinline__ int TileIndex(int row, int piece) {
  return row * kD + ((piece ^ (row % 8)) * 8);
}

// Queries of 16 lanes, dimensions [16 k, 16 k + 16) as they lie.
template <int kD>
__device__ __forceinline__ void LoadQueries(const Shared<uint16_t>& queries, int thread, int k,
                                            uint32_t (&a)[4]) {
  LoadMatrix4(queries + TileIndex<kD>(thread % 16, 2 * k + thread / 16), a);
}

template <int kD, int kWarps>
struct Bf16Tiles {
  // Keys a tile. Wide heads: half as many, so that everything fits 163 KiB (sm_80).
  static constexpr int kKeys = kD <= 128 ? kPieceKeys : kPieceKeys / 2;
  static constexpr int kScoreTiles = kKeys / 8, kOutTiles = kD / 8;
  static constexpr int kTileValues = kKeys * kD;
  static constexpr int kPieces16 = kD / 8;  // of 16 bytes a row
  static constexpr size_t kValues = 2ul * kStages * kTileValues;
  static constexpr size_t kBytes = 2 * kValues;  // of shared memory, from 0 on

  static constexpr bool kBalanced = false;
  // Where dimension d of a query lies.
  static __device__ __forceinline__ int QueryPlace(int d) { return d; }

  // Begins to copy a tile; what no lane sees becomes zeros.
  static __device__ __forceinline__ void Load(const AttentionParams& p, const TileView& view,
                                              int kv_head, int thread, int stage) {
    const Shared<uint16_t> keys = SharedAt<uint16_t>(0) + stage * kTileValues;
    const Shared<uint16_t> values = SharedAt<uint16_t>(kValues) + stage * kTileValues;
    const int64_t head_values = int64_t{kBlockTokens} * kD;
    const int64_t to_value = p.geometry.kv_heads * head_values;
#pragma unroll 2
    for (int i = thread; i < kKeys * kPieces16; i += 32 * kWarps) {
      const bool seen = view.Seen(i / kPieces16, 1);
      const int key = view.first + i / kPieces16;
      const int64_t block = seen ? p.block_table[view.piece.block + key / kBlockTokens] : 0;
      const Global<const uint16_t> from =
          p.layer.bf16 + (block * p.geometry.own_values() + kv_head * head_values +
                          key % kBlockTokens * kD + i % kPieces16 * 8);
      CopyAsync16(keys + 8 * i, from, seen);
      CopyAsync16(values + 8 * i, from + to_value, seen);
    }
  }

  // scores, zeros before: of 16 lanes and the tile's keys.
  static __device__ __forceinline__ void Scores(int stage, int thread,
                                                const Shared<uint16_t>& queries,
                                                float (&scores)[kScoreTiles][4]) {
    const Shared<uint16_t> keys = SharedAt<uint16_t>(0) + stage * kTileValues;
#pragma unroll 2
    for (int k = 0; k < kD / 16; ++k) {
      uint32_t a[4];
      LoadQueries<kD>(queries, thread, k, a);
#pragma unroll
      for (int n = 0; n < kScoreTiles; n += 2) {
        uint32_t b[4];
        const int key = 8 * n + thread % 8 + thread / 16 * 8;
        LoadMatrix4(keys + TileIndex<kD>(key, 2 * k + thread / 8 % 2), b);
        MultiplyBf16(scores[n], a, b[0], b[1]);
        MultiplyBf16(scores[n + 1], a, b[2], b[3]);
      }
    }
  }

  static __device__ __forceinline__ void AddValues(int stage, int thread,
                                                   const float (&weights)[kScoreTiles][4],
                                                   float (&out)[kOutTiles][4]) {
    const Shared<uint16_t> values = SharedAt<uint16_t>(kValues) + stage * kTileValues;
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
      const uint32_t a[4] = {PackBf16(low[0], low[1]), PackBf16(low[2], low[3]),
                             PackBf16(high[0], high[1]), PackBf16(high[2], high[3])};
#pragma unroll
      for (int n = 0; n < kOutTiles; n += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(values + TileIndex<kD>(16 * k + thread % 16, n + thread / 16), b);
        MultiplyBf16(out[n], a, b[0], b[1]);
        MultiplyBf16(out[n + 1], a, b[2], b[3]);
      }
    }
  }
};

// Int8 values are whole numbers of bf16, so products of them are as exact as those of queries and
// weights in bf16. Scales stay in fp32: those of keys come behind the products of a group, those of
// values before weights are rounded.
template <int kD, int kWarps>
struct Int8Tiles {
  static constexpr int kKeys = kD <= 128 ? kPieceKeys : kPieceKeys / 2;
  static constexpr int kScoreTiles = kKeys / 8, kOutTiles = kD / 8;
  static constexpr int kBlocks = kKeys / kBlockTokens;
  static constexpr int kHeadBytes = kBlockTokens * kD;  // keys or values of a block
  static constexpr int kScales = kD / kKeyScaleDims + 1;
  static constexpr int kScaleBytes = 4 * kScales * kBlockTokens;  // of a block
  static constexpr int kStageBytes = kBlocks * (2 * kHeadBytes + kScaleBytes);
  static constexpr size_t kBytes = size_t{kStages} * kStageBytes;

  static constexpr bool kBalanced = true;
  // Thread 4 r + c multiplies, of every 32 dimensions, those from 8 c on: two steps of four, of
  // which the matrix product takes two as 2 c and two as 2 c + 8.
  static __device__ __forceinline__ int QueryPlace(int d) {
    return 16 * (d / 32 * 2 + d % 8 / 4) + 2 * (d % 32 / 8) + d % 4 / 2 * 8 + d % 2;
  }

  // In units of 16 bits, as asynchronous copies take them: blocks as they lie.
  static __device__ __forceinline__ void Load(const AttentionParams& p, const TileView& view,
                                              int kv_head, int thread, int stage) {
    const KvGeometry& g = p.geometry;
    const Shared<uint16_t> to = SharedAt<uint16_t>(static_cast<size_t>(stage) * kStageBytes);
    constexpr int kPieces = kHeadBytes / 16, kScalePieces = kScaleBytes / 16;
#pragma unroll 2
    for (int i = thread; i < kBlocks * kPieces; i += 32 * kWarps) {
      const int b = i / kPieces;
      const bool seen = view.Seen(b * kBlockTokens, kBlockTokens);
      const Global<const uint16_t> from =
          Block(p, view, b, seen) + At(kv_head * kHeadBytes + i % kPieces * 16);
      CopyAsync16(to + At(i * 16), from, seen);
      CopyAsync16(to + At((kBlocks * kPieces + i) * 16), from + At(g.kv_heads * kHeadBytes), seen);
    }
    for (int i = thread; i < kBlocks * kScalePieces; i += 32 * kWarps) {
      const int b = i / kScalePieces;
      const bool seen = view.Seen(b * kBlockTokens, kBlockTokens);
      const Global<const uint16_t> from = Block(p, view, b, seen) +
                                          At(g.kv_heads * 2 * kHeadBytes) +
                                          At(kv_head * kScaleBytes + i % kScalePieces * 16);
      CopyAsync16(to + At((2 * kBlocks * kPieces + i) * 16), from, seen);
    }
  }

  static __device__ __forceinline__ void Scores(int stage, int thread,
                                                const Shared<uint16_t>& queries,
                                                float (&scores)[kScoreTiles][4]) {
    const Shared<uint8_t> keys = Stage(stage) + thread * 16;
#pragma unroll 1
    for (int s = 0; s < kD / 64; ++s) {
      uint32_t a[4][4];
#pragma unroll
      for (int k = 0; k < 4; ++k) LoadQueries<kD>(queries, thread, 4 * s + k, a[k]);
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
        const Words4 w =
            LoadShared<Words4>(keys + (n / 2 * kHeadBytes + (n % 2 * (kD / 64) + s) * 512));
        AddGroup(a[0], a[1], w.x, w.y, ScalesOf(stage, n, 2 * s, thread), scores[n]);
        AddGroup(a[2], a[3], w.z, w.w, ScalesOf(stage, n, 2 * s + 1, thread), scores[n]);
      }
    }
  }

  static __device__ __forceinline__ void AddValues(int stage, int thread,
                                                   const float (&weights)[kScoreTiles][4],
                                                   float (&out)[kOutTiles][4]) {
    const Shared<uint8_t> values = Stage(stage) + (kBlocks * kHeadBytes + thread * 16);
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      const float(&low)[4] = weights[2 * k], (&high)[4] = weights[2 * k + 1];
      const Vec2 s = ScalesOf(stage, 2 * k, kScales - 1, thread);
      const Vec2 t = ScalesOf(stage, 2 * k + 1, kScales - 1, thread);
      const uint32_t a[4] = {PackBf16(Scaled(low[0], s.x), Scaled(low[1], s.y)),
                             PackBf16(Scaled(low[2], s.x), Scaled(low[3], s.y)),
                             PackBf16(Scaled(high[0], t.x), Scaled(high[1], t.y)),
                             PackBf16(Scaled(high[2], t.x), Scaled(high[3], t.y))};
#pragma unroll
      for (int n = 0; n < kOutTiles; n += 4) {
        const Words4 w = LoadShared<Words4>(values + (k * kHeadBytes + n / 4 * 512));
        MultiplyWide(out[n], a, w.x);
        MultiplyWide(out[n + 1], a, w.y);
        MultiplyWide(out[n + 2], a, w.z);
        MultiplyWide(out[n + 3], a, w.w);
      }
    }
  }

 private:
  static __device__ __forceinline__ int64_t At(int64_t bytes) { return bytes / 2; }
  static __device__ __forceinline__ Global<const uint16_t> Block(const AttentionParams& p,
                                                                 const TileView& view, int b,
                                                                 bool seen) {
    const int entry = view.piece.block + view.first / kBlockTokens + b;
    const int64_t block = seen ? p.block_table[entry] : 0;
    return p.layer.bf16 + At(block * p.geometry.kv_heads * (2 * kHeadBytes + kScaleBytes));
  }
  static __device__ __forceinline__ Shared<uint8_t> Stage(int stage) {
    return SharedAt<uint8_t>(static_cast<size_t>(stage) * kStageBytes);
  }
  // Of this thread's two keys of eight.
  static __device__ __forceinline__ Vec2 ScalesOf(int stage, int n, int group, int thread) {
    const int place = n / 2 * kScaleBytes + 4 * (group * kBlockTokens + n % 2 * 8);
    return LoadShared<Vec2>(Stage(stage) + (2 * kBlocks * kHeadBytes + place + 8 * (thread % 4)));
  }
  // What nobody sees counts for nothing, whatever its scale is.
  static __device__ __forceinline__ float Scaled(float weight, float scale) {
    return weight == 0.0f ? 0.0f : weight * scale;
  }
  static __device__ __forceinline__ void MultiplyWide(float (&c)[4], const uint32_t (&a)[4],
                                                      uint32_t four) {
    uint32_t b[2];
    WidenInt8(four, b[0], b[1]);
    MultiplyBf16(c, a, b[0], b[1]);
  }
  static __device__ __forceinline__ void AddGroup(const uint32_t (&a)[4], const uint32_t (&next)[4],
                                                  uint32_t four, uint32_t four_more,
                                                  const Vec2& scales, float (&scores)[4]) {
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    MultiplyWide(sum, a, four);
    MultiplyWide(sum, next, four_more);
    scores[0] = Fma(sum[0], scales.x, scores[0]);
    scores[1] = Fma(sum[1], scales.y, scores[1]);
    scores[2] = Fma(sum[2], scales.x, scores[2]);
    scores[3] = Fma(sum[3], scales.y, scores[3]);
  }
};

}  // namespace kvasir::cuda
