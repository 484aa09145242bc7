// Attention on matrix units: bf16 queries and weights, bf16 or int8 keys and values, fp32 sums.
// FlashAttention's scheme with explicit positions: queries are turned once a segment, tiles of keys
// come through two buffers of shared memory by asynchronous copies, and each warp owns 16 lanes
// from scores to output, so that a lane's bits are the same in blocks of one warp (decode) and of
// four (prefill).
//
// Work of a warp and a tile of 64 keys, D = 128: 64 products for scores, 64 for values, 2 x 32
// loads of four fragments. A block of one warp needs 68 KiB of shared memory, 64 KiB of them
// two tiles of keys and values; three blocks fit an H100's processor.
//
// Over int8 pools (Int8Tiles) a tile is 17 KiB, and its 64 x 2 x 128 values cost 1,024 instructions
// to widen: in decode a quarter of the time that their bytes take to come.
#include "kernels/cuda/attention_tiles.cuh"

namespace kvasir::cuda {
namespace {

constexpr int kLanes = 16;  // of a warp

// Shared memory in bytes: tiles, queries, sums over splits.
template <typename Tiles, int kD, int kWarps>
struct Layout {
  static constexpr size_t kQueries = Tiles::kBytes;
  static constexpr size_t kTotals = kQueries + 2ul * kWarps * kLanes * kD;
  static constexpr size_t kBytes = kTotals + (kWarps > 1 ? 4ul * kWarps * kLanes * kD : 0);
};

template <int kWarps>
__device__ __forceinline__ void SyncTeam() {
  if constexpr (kWarps == 1) {
    SyncWarp();
  } else {
    SyncBlock();
  }
}

// A tile of keys: part `half` of a piece.
struct KeyTile {
  int piece, half;
};

template <typename Tiles, int kD, int kWarps>
struct TileWork {
  using Shape = Layout<Tiles, kD, kWarps>;
  static constexpr int kKeys = Tiles::kKeys;
  static constexpr int kHalves = kPieceKeys / kKeys;
  static constexpr int kScoreTiles = kKeys / 8, kOutTiles = kD / 8;

  const AttentionParams& p;
  const Tile& tile;
  int kv_head, warp, thread;
  int32_t first_position, last_position;  // of the tile's lanes
  // This thread's two lanes: thread / 4 and eight more.
  int32_t position[2];
  int32_t warp_first;  // position of the warp's first lane
  bool warp_full;      // all 16 lanes exist
  float out[kOutTiles][4];
  SoftmaxState state[2];
  SoftmaxState total[2];
  bool have_total;

  __device__ __forceinline__ TileWork(const AttentionParams& params, const Tile& of)
      : p(params),
        tile(of),
        kv_head(static_cast<int>(blockIdx.y)),
        warp(static_cast<int>(threadIdx.x) / 32),
        thread(static_cast<int>(threadIdx.x) % 32) {
    Begin();
  }

  __device__ __forceinline__ int LaneOf(int i) const {
    return tile.lane_begin + warp * kLanes + thread / 4 + 8 * i;
  }
  __device__ __forceinline__ bool Exists(int lane) const { return lane < tile.lane_end; }

  __device__ __forceinline__ void Begin() {
    first_position = p.positions[tile.lane_begin / p.group];
    last_position = p.positions[(tile.lane_end - 1) / p.group];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      position[i] = Exists(LaneOf(i)) ? p.positions[LaneOf(i) / p.group] : -1;
      total[i] = EmptyState();
    }
    const int begin = tile.lane_begin + warp * kLanes;
    warp_full = begin + kLanes <= tile.lane_end;
    warp_first = Exists(begin) ? p.positions[begin / p.group] : -1;
    have_total = false;
    Clear();
  }

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int n = 0; n < kOutTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[n][e] = 0.0f;
    }
    state[0] = state[1] = EmptyState();
  }

  // Whether some lane of the block sees some key of the tile.
  __device__ __forceinline__ bool Reaches(const Piece& piece, int half) const {
    const int begin = half * kKeys;
    if (begin >= piece.keys) return false;
    const int32_t first = piece.base + piece.first_key + begin;
    if (first > last_position) return false;
    return p.window == 0 || first + kKeys - 1 > first_position - p.window;
  }
  __device__ __forceinline__ KeyTile Next(KeyTile at, int end) const {
    for (;;) {
      if (++at.half == kHalves) at = {at.piece + 1, 0};
      if (at.piece >= end || Reaches(p.pieces[at.piece], at.half)) return at;
    }
  }

  __device__ __forceinline__ void Load(KeyTile at, int stage) const {
    const TileView view = {p.pieces[at.piece], at.half * kKeys, first_position, last_position,
                           p.window};
    Tiles::Load(p, view, kv_head, warp * 32 + thread, stage);
  }

  __device__ __forceinline__ Shared<uint16_t> Queries() const {
    return SharedAt<uint16_t>(Shape::kQueries) + warp * kLanes * kD;
  }

  // Turns the warp's queries into the frame of a segment.
  __device__ void TurnQueries(const Piece& piece) const {
    const float factor =
        p.scale * (piece.context != 0 ? p.scales[tile.sequence].inverse_temperature : 1.0f);
    SyncWarp();
    for (int i = thread; i < kLanes * (kD / 2); i += 32) {
      const int row = i / (kD / 2), pair = i % (kD / 2);
      const int lane = tile.lane_begin + warp * kLanes + row;
      const PairPlace place = PlaceOf(p.turns, pair);
      Vec2 x = {0.0f, 0.0f};
      if (Exists(lane)) {
        const int64_t distance = int64_t{p.positions[lane / p.group]} - piece.base;
        x = TurnedQuery<Tiles::kBalanced>(p, p.q.data + QueryOffset(p, p.q, lane, kv_head),
                                          distance, pair, kv_head, factor);
      }
      const Shared<uint16_t> queries = Queries();
      const int first = Tiles::QueryPlace(place.first), second = Tiles::QueryPlace(place.second);
      queries[TileIndex<kD>(row, first / 8) + first % 8] = FloatToBf16(x.x);
      queries[TileIndex<kD>(row, second / 8) + second % 8] = FloatToBf16(x.y);
    }
    SyncWarp();
  }

  // Scores of keys that a lane does not see become -infinity.
  __device__ __forceinline__ void Mask(const Piece& piece, int half,
                                       float (&scores)[kScoreTiles][4]) const {
    const int begin = half * kKeys;
    const int32_t first = piece.base + piece.first_key + begin;
    const bool all = warp_full && begin + kKeys <= piece.keys && first + kKeys - 1 <= warp_first &&
                     (p.window == 0 || first > last_position - p.window);
    if (all) return;
#pragma unroll
    for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = 8 * n + 2 * (thread % 4) + e % 2;
        const bool seen = begin + key < piece.keys && Sees(position[e / 2], p.window, first + key);
        if (!seen) scores[n][e] = -Infinity();
      }
    }
  }

  // Scores become weights; the sums so far are brought to the new maximum.
  __device__ __forceinline__ void Weigh(float (&scores)[kScoreTiles][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float max = state[i].max;
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n)
        max = Max(max, Max(scores[n][2 * i], scores[n][2 * i + 1]));
      max = Max(max, ShuffleXor(max, 1));
      max = Max(max, ShuffleXor(max, 2));
      const float around = max == -Infinity() ? 0.0f : max;
      const float keep = Exp2(state[i].max - around);
      float sum = 0;
#pragma unroll
      for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
        for (int e = 2 * i; e < 2 * i + 2; ++e) {
          scores[n][e] = Exp2(scores[n][e] - around);
          sum += scores[n][e];
        }
      }
      state[i] = {max, Fma(state[i].sum, keep, sum)};
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
        out[n][2 * i] *= keep;
        out[n][2 * i + 1] *= keep;
      }
    }
  }

  __device__ __forceinline__ void AddTile(const Piece& piece, int half, int stage) {
    float scores[kScoreTiles][4];
#pragma unroll
    for (int n = 0; n < kScoreTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[n][e] = 0.0f;
    }
    Tiles::Scores(stage, thread, Queries(), scores);
    Mask(piece, half, scores);
    Weigh(scores);
    Tiles::AddValues(stage, thread, scores, out);
  }

  // The four threads of a lane hold parts of its sum.
  __device__ __forceinline__ void SumStates() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      state[i].sum += ShuffleXor(state[i].sum, 1);
      state[i].sum += ShuffleXor(state[i].sum, 2);
    }
  }

  __device__ __forceinline__ int Column(int n) const { return 8 * n + 2 * (thread % 4); }

  __device__ __forceinline__ void StorePart(int split) {
    SumStates();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!Exists(LaneOf(i))) continue;
      const int64_t at = PartialOf(p, tile, split, LaneOf(i), kv_head);
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
        StoreAs(p.partial_out + (at * kD + Column(n)), Vec2{out[n][2 * i], out[n][2 * i + 1]});
      }
      if (thread % 4 != 0) continue;
      p.partial_stats[2 * at] = state[i].max;
      p.partial_stats[2 * at + 1] = state[i].sum;
    }
  }

  // This thread's own values of shared memory: no barrier.
  __device__ __forceinline__ void MergeTotals() {
    const Shared<float> totals = SharedAt<float>(Shape::kTotals);
    SumStates();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const MergeFactors f = MergeInto(total[i], state[i]);
      const int row = warp * kLanes + thread / 4 + 8 * i;
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int at = row * kD + Column(n) + e;
          const float before = have_total ? static_cast<float>(totals[at]) : 0.0f;
          totals[at] = Merged(f, before, out[n][2 * i + e]);
        }
      }
    }
    have_total = true;
    Clear();
  }

  // The last split, and the output. A block of one warp has no other split.
  __device__ __forceinline__ void Finish() {
    const Shared<float> totals = SharedAt<float>(Shape::kTotals);
    SumStates();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const MergeFactors f = MergeInto(total[i], state[i]);
      const float share = ShareOf(total[i]);
      if (!Exists(LaneOf(i))) continue;
      const Global<float> to = p.out.data + QueryOffset(p, p.out, LaneOf(i), kv_head);
      const int row = warp * kLanes + thread / 4 + 8 * i;
#pragma unroll
      for (int n = 0; n < kOutTiles; ++n) {
        float value[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float before = 0.0f;
          if constexpr (kWarps > 1) {
            if (have_total) before = totals[row * kD + Column(n) + e];
          }
          value[e] = Merged(f, before, out[n][2 * i + e]) * share;
        }
        to[Column(n)] = value[0];
        to[Column(n) + 1] = value[1];
      }
      if (thread % 4 == 0) StoreStats(p, LaneOf(i), kv_head, total[i]);
    }
  }

  __device__ __forceinline__ void Run(const Unit& unit) {
    const PieceRange range = RangeOf(tile, unit);
    KeyTile at = Next({range.begin - 1, kHalves - 1}, range.end);
    if (at.piece < range.end) Load(at, 0);
    CommitCopies();
    int32_t base = 0, context = -1;
    for (int stage = 0; at.piece < range.end; stage ^= 1) {
      const KeyTile next = Next(at, range.end);
      if (next.piece < range.end) Load(next, stage ^ 1);
      CommitCopies();
      const Piece piece = p.pieces[at.piece];
      if (context != piece.context || base != piece.base) TurnQueries(piece);
      base = piece.base;
      context = piece.context;
      WaitCopies<1>();
      SyncTeam<kWarps>();  // everybody's copies are there
      AddTile(piece, at.half, stage);
      SyncTeam<kWarps>();  // everybody has read the tile
      if constexpr (kWarps > 1) {
        const auto split_of = [&](const KeyTile& t) {
          return (t.piece - tile.piece_begin) / kSplitPieces;
        };
        if (next.piece < range.end && split_of(next) != split_of(at)) MergeTotals();
      }
      at = next;
    }
    WaitCopies<0>();
    if (unit.split >= 0) {
      StorePart(unit.split);
    } else {
      Finish();
    }
  }
};

// Blocks that should fit a processor, as far as shared memory lets them: what registers may be for.
template <int kD, int kWarps>
inline constexpr int kResident = kWarps == 1 || kD == 256 ? 1 : (kD == 128 ? 2 : 3);

template <typename Tiles, int kD, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, (kResident<kD, kWarps>))
    MmaKernel(AttentionParams p) {
  LetNextBegin();
  AwaitEarlierKernels();
  const Unit unit = p.units[blockIdx.x];
  if (unit.tile == kNoTile) return;
  const Tile tile = p.tiles[unit.tile];
  TileWork<Tiles, kD, kWarps> work(p, tile);
  work.Run(unit);
}

template <typename Tiles, int kD, int kWarps>
Status LaunchUnits(Stream stream, const AttentionCall& call, const Unit* units, int32_t count) {
  if (count == 0) return Status::Ok();
  AttentionParams p = ParamsOf(call);
  p.units = units;
  LaunchShape shape;
  shape.blocks_x = static_cast<unsigned>(count);
  shape.blocks_y = static_cast<unsigned>(p.geometry.kv_heads);
  shape.threads = 32 * kWarps;
  shape.shared_bytes = Layout<Tiles, kD, kWarps>::kBytes;
  return Launch(stream, shape, MmaKernel<Tiles, kD, kWarps>, p);
}

template <template <int, int> typename Tiles, int kD>
Status LaunchDimension(Stream stream, const AttentionCall& call) {
  constexpr int kLarge = kLargeTile / kLanes, kSmall = kSmallTile / kLanes;
  const DeviceTables& t = call.tables;
  KVASIR_RETURN_IF_ERROR(
      (LaunchUnits<Tiles<kD, kLarge>, kD, kLarge>(stream, call, t.large, t.large_count)));
  return LaunchUnits<Tiles<kD, kSmall>, kD, kSmall>(stream, call, t.small, t.small_count);
}

template <template <int, int> typename Tiles>
Status LaunchForm(Stream stream, const AttentionCall& call) {
  switch (call.pool->geometry().head_dim) {
    case 64:
      return LaunchDimension<Tiles, 64>(stream, call);
    case 128:
      return LaunchDimension<Tiles, 128>(stream, call);
    case 256:
      return LaunchDimension<Tiles, 256>(stream, call);
    default:
      return Internal("attention: a head dimension that matrix units do not take");
  }
}

}  // namespace

bool FitsMatrixUnits(const KvGeometry& geometry) {
  const int32_t d = geometry.head_dim;
  return geometry.form != KvForm::kF32 && (d == 64 || d == 128 || d == 256);
}

Status AttentionOnMatrixUnits(Stream stream, const AttentionCall& call) {
  if (call.pool->geometry().form == KvForm::kI8) return LaunchForm<Int8Tiles>(stream, call);
  return LaunchForm<Bf16Tiles>(stream, call);
}

}  // namespace kvasir::cuda
