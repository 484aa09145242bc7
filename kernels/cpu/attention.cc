#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/core/status.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/attention_ops.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/attention_scores.h"
#include "kernels/cpu/kv_pool.h"

namespace kvasir {
namespace {

// What every task of one call shares.
struct Call {
  const AttentionOps& ops;
  const AttentionArgs& args;
  const CpuAttentionPlan& plan;
  const CpuKvPool& pool;
  const Rotations& rotations;
  int32_t head_dim, width, group;  // D, D', H / G
  const KeptScores* kept = nullptr;

  Call(const AttentionOps& o, const AttentionArgs& a, const Rotations& r)
      : ops(o),
        args(a),
        plan(static_cast<const CpuAttentionPlan&>(*a.plan)),
        pool(static_cast<const CpuKvPool&>(*a.pool)),
        rotations(r),
        head_dim(a.pool->layout().head_dim),
        width(pool.tile().v_width),
        group(static_cast<int32_t>(a.q.cols / head_dim / a.pool->layout().kv_heads)) {}

  int64_t position(int32_t row) const { return args.batch->positions[static_cast<size_t>(row)]; }
  // Floats of one finished split of a lane: max, sum, acc [D'].
  int64_t partial_floats() const { return width + 2; }
  int64_t lanes(const RowTile& tile) const {
    return int64_t{tile.row_end - tile.row_begin} * group;
  }
};

// What the lanes of some tiles have at work: an entry a lane, one behind the other.
struct LaneMemory {
  float *query, *operands, *total_acc, *context_acc;         // [lanes][D']
  float *total_max, *total_sum, *context_max, *context_sum;  // [lanes]
  LaneState state;                                           // of the current split
  KeyRange* ranges;                                          // [lanes]

  LaneMemory(int64_t lanes, int32_t width, AttentionScratch& scratch) {
    const int64_t values = lanes * width;
    const auto floats = static_cast<size_t>(5 * values + (kTileSlots + 5) * lanes);
    if (scratch.floats.size() < floats) scratch.floats.resize(floats);
    if (scratch.ranges.size() < static_cast<size_t>(lanes)) {
      scratch.ranges.resize(static_cast<size_t>(lanes));
    }
    query = scratch.floats.data();
    operands = query + values;
    state.acc = operands + values;
    total_acc = state.acc + values;
    context_acc = total_acc + values;
    state.sum = context_acc + values;
    state.max = state.sum + kTileSlots * lanes;
    total_max = state.max + lanes;
    total_sum = total_max + lanes;
    context_max = total_sum + lanes;
    context_sum = context_max + lanes;
    ranges = scratch.ranges.data();
  }
  LaneMemory From(int64_t lane, int32_t width) const {
    LaneMemory part = *this;
    for (float** values :
         {&part.query, &part.operands, &part.total_acc, &part.context_acc, &part.state.acc}) {
      *values += lane * width;
    }
    for (float** value : {&part.total_max, &part.total_sum, &part.context_max, &part.context_sum,
                          &part.state.max}) {
      *value += lane;
    }
    part.state.sum += lane * kTileSlots;
    part.ranges += lane;
    return part;
  }
};

// One row tile and kv head. Lane i is row i / group, query head i % group of the kv head's group.
class TileWork {
 public:
  TileWork(const Call& call, int32_t tile, int32_t head, const LaneMemory& memory)
      : call_(call),
        tile_(call.plan.tiles()[static_cast<size_t>(tile)]),
        head_(head),
        lanes_(call.lanes(tile_)),
        context_(call.args.batch->sequences[static_cast<size_t>(tile_.sequence)].context) {
    if (call.kept != nullptr) kept_ = call.kept->Of(tile, head);
    query_ = memory.query;
    operands_ = memory.operands;
    state_ = memory.state;
    total_acc_ = memory.total_acc;
    total_max_ = memory.total_max;
    total_sum_ = memory.total_sum;
    context_max_ = memory.context_max;
    context_sum_ = memory.context_sum;
    context_acc_ = memory.context_acc;
    ranges_ = memory.ranges;
    ScaleQueries();
  }

  void BeginSplit() {
    std::fill_n(state_.max, lanes_, kNoScore);
    std::fill_n(state_.sum, kTileSlots * lanes_, 0.0f);
    std::fill_n(state_.acc, lanes_ * call_.width, 0.0f);
  }
  // Leaves the softmax of one split in state_.
  void RunSplit(int32_t split) {
    BeginSplit();
    const int32_t begin = tile_.piece_begin + split * CpuAttentionPlan::kSplitPieces;
    const int32_t end = std::min(begin + CpuAttentionPlan::kSplitPieces, tile_.piece_end);
    for (int32_t p = begin; p < end; ++p) AddPiece(p);
  }

  // Ranges and turned queries for a piece; false if no lane sees a key of it.
  bool Prepare(int32_t index) {
    const PlannedPiece& piece = call_.plan.pieces()[static_cast<size_t>(index)];
    if (!FillRanges(piece)) return false;
    if (piece.segment != segment_) TurnQueries(piece.segment);
    return true;
  }
  AttentionPiece TilesOf(int32_t index) const {
    AttentionPiece tiles;
    FillTiles(call_.plan.pieces()[static_cast<size_t>(index)], tiles.k, tiles.v);
    const int32_t next = std::min(index + 1, tile_.piece_end - 1);
    FillTiles(call_.plan.pieces()[static_cast<size_t>(next)], tiles.next_k, tiles.next_v);
    return tiles;
  }
  int32_t first_piece(int32_t split) const {
    return tile_.piece_begin + split * CpuAttentionPlan::kSplitPieces;
  }

  void StorePartials(float* to) const {
    for (int64_t lane = 0; lane < lanes_; ++lane, to += call_.partial_floats()) {
      to[0] = state_.max[lane];
      to[1] = call_.ops.sum(state_.sum + lane * kTileSlots);
      std::copy_n(state_.acc + lane * call_.width, call_.width, to + 2);
    }
  }

  void ClearTotals() {
    std::fill_n(total_max_, lanes_, kNoScore);
    std::fill_n(total_sum_, lanes_, 0.0f);
    std::fill_n(total_acc_, lanes_ * call_.width, 0.0f);
    if (!counts_context()) return;
    std::fill_n(context_max_, lanes_, kNoScore);
    std::fill_n(context_sum_, lanes_, 0.0f);
    std::fill_n(context_acc_, lanes_ * call_.width, 0.0f);
  }
  void MergeSplit(int32_t split) {
    const bool context = IsContext(split);
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      call_.ops.merge(state_.max[lane], call_.ops.sum(state_.sum + lane * kTileSlots),
                      state_.acc + lane * call_.width, call_.width, TotalOf(lane, context));
    }
  }
  void MergePartials(int32_t split, const float* from) {
    const bool context = IsContext(split);
    for (int64_t lane = 0; lane < lanes_; ++lane, from += call_.partial_floats()) {
      call_.ops.merge(from[0], from[1], from + 2, call_.width, TotalOf(lane, context));
    }
  }

  // Writes the output rows; a lane that saw no key gets zeros.
  void Finish() const {
    MergeContext();
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const float sum = total_sum_[lane];
      const float share = sum == 0.0f ? 0.0f : 1.0f / sum;
      const float* acc = total_acc_ + lane * call_.width;
      float* out = LaneOf(call_.args.out, lane);
      for (int32_t d = 0; d < call_.head_dim; ++d) out[d] = acc[d] * share;
      if (kept_.scores == nullptr) continue;
      kept_.max[lane] = total_max_[lane];
      kept_.share[lane] = share;
    }
  }

 private:
  int32_t RowOf(int64_t lane) const {
    return tile_.row_begin + static_cast<int32_t>(lane / call_.group);
  }
  float* LaneOf(const TensorView& view, int64_t lane) const {
    const int64_t query_head = int64_t{head_} * call_.group + lane % call_.group;
    return view.f32_row(RowOf(lane)) + query_head * call_.head_dim;
  }
  LaneTotal TotalOf(int64_t lane, bool context) const {
    if (context) {
      return {context_max_ + lane, context_sum_ + lane, context_acc_ + lane * call_.width};
    }
    return {total_max_ + lane, total_sum_ + lane, total_acc_ + lane * call_.width};
  }
  const SegmentRef& SegmentOf(int32_t piece) const {
    const PlannedPiece& planned = call_.plan.pieces()[static_cast<size_t>(piece)];
    return call_.args.batch->segments[static_cast<size_t>(planned.segment)];
  }
  bool IsContext(int32_t split) const {
    return counts_context() &&
           SegmentOf(tile_.piece_begin + split * CpuAttentionPlan::kSplitPieces).context;
  }
  // Whether context keys have a sum of their own.
  bool counts_context() const { return context_.scale != 1.0f; }
  // With S the context's log-sum-exp: exp(S) becomes exp(scale * S).
  void MergeContext() const {
    if (!counts_context()) return;
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const LaneTotal context = TotalOf(lane, true);
      if (*context.sum == 0.0f) continue;
      const float log_sum = *context.max + std::log2(*context.sum);
      call_.ops.merge(*context.max + (context_.scale - 1.0f) * log_sum, *context.sum, context.acc,
                      call_.width, TotalOf(lane, false));
    }
  }

  // Queries times scale and log2(e), so that weights are powers of two.
  void ScaleQueries() {
    const float scale = call_.args.scale * std::numbers::log2e_v<float>;
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const float* from = LaneOf(call_.args.q, lane);
      float* to = query_ + lane * call_.width;
      for (int32_t d = 0; d < call_.head_dim; ++d) to[d] = from[d] * scale;
    }
  }

  // Turns the queries to positions relative to a segment's base; rows before it see none of it.
  void TurnQueries(int32_t segment) {
    const SegmentRef& ref = call_.args.batch->segments[static_cast<size_t>(segment)];
    const int64_t base = ref.base;
    const float share = ref.context ? 1.0f / context_.temperature : 1.0f;
    const int64_t values = int64_t{call_.group} * call_.width;
    const KvTile tile = call_.pool.tile(call_.args.layer, head_);
    for (int32_t row = tile_.row_begin; row < tile_.row_end; ++row) {
      const int64_t offset = call_.position(row) - base;
      if (offset < 0) continue;
      const Rotation rotation = call_.rotations.At(offset);
      const int64_t begin = (row - tile_.row_begin) * values;
      for (int64_t at = begin; at < begin + values; at += call_.width) {
        call_.ops.turn(tile, rotation, query_ + at, share, operands_ + at);
      }
    }
    segment_ = segment;
  }

  // Ranges of all lanes; false if none sees a key.
  bool FillRanges(const PlannedPiece& piece) {
    bool any = false;
    KeyRange* lane = ranges_;
    for (int32_t row = tile_.row_begin; row < tile_.row_end; ++row) {
      const KeyRange range = SeenKeys(call_.args, row, piece);
      lane = std::fill_n(lane, call_.group, range);
      any |= range.lo < range.hi;
    }
    return any;
  }

  // Pointers to the tiles of a piece.
  void FillTiles(const PlannedPiece& piece, const void** k, const void** v) const {
    const int32_t last = std::max(1, BlocksFor(piece.keys)) - 1;
    for (int32_t b = 0; b < kPieceBlocks; ++b) {
      const auto entry = static_cast<size_t>(piece.block + std::min(b, last));
      const int32_t block = call_.args.batch->block_table[entry];
      k[b] = call_.pool.K(call_.args.layer, block, head_);
      v[b] = call_.pool.V(call_.args.layer, block, head_);
    }
  }

  void AddPiece(int32_t index) {
    if (!Prepare(index)) return;
    const AttentionPiece tiles = TilesOf(index);
    if (kept_.scores != nullptr) {
      state_.scores = kept_.scores + (index - tile_.piece_begin) * kPieceKeys;
      state_.score_stride = kept_.stride;
    }
    call_.ops.add_piece(call_.pool.tile(), tiles, static_cast<int>(lanes_), operands_, ranges_,
                        state_);
  }

  const Call& call_;
  const RowTile& tile_;
  const int32_t head_;
  const int64_t lanes_;
  const ContextScale context_;
  int32_t segment_ = -1;  // for which operands_ holds
  float* query_;          // [lanes][D'] scaled
  float* operands_;       // [lanes][D'] of segment_
  LaneState state_;       // of the current split
  TileScores kept_;       // null unless wanted
  float *total_max_, *total_sum_, *total_acc_;
  float *context_max_, *context_sum_, *context_acc_;
  KeyRange* ranges_;  // [lanes] of the piece at hand
};

// Where the partial results of (tile, kv head, split) begin: [tile][head][split][lanes].
float* PartialsOf(const Call& call, const RowTile& tile, int32_t head, int32_t split) {
  const int64_t heads = call.pool.layout().kv_heads, splits = CpuAttentionPlan::SplitsOf(tile);
  const int64_t lane =
      tile.partial * heads * call.group + (head * splits + split) * call.lanes(tile);
  return call.plan.partials().data() + lane * call.partial_floats();
}

// One split of all tiles of a group: every piece is read once, for all lanes side by side.
void RunGroup(const Call& call, const AttentionUnit& unit, int32_t head,
              AttentionScratch& scratch) {
  const std::vector<int32_t>& tiles = call.plan.groups()[static_cast<size_t>(unit.group)];
  const auto tile_at = [&](int32_t index) -> const RowTile& {
    return call.plan.tiles()[static_cast<size_t>(index)];
  };
  int64_t lanes = 0;
  for (const int32_t tile : tiles) lanes += call.lanes(tile_at(tile));
  const LaneMemory memory(lanes, call.width, scratch);
  std::vector<TileWork> works;
  works.reserve(tiles.size());
  int64_t lane = 0;
  for (const int32_t tile : tiles) {
    works.emplace_back(call, tile, head, memory.From(lane, call.width));
    works.back().BeginSplit();
    lane += call.lanes(tile_at(tile));
  }
  for (int32_t piece = 0; piece < CpuAttentionPlan::kSplitPieces; ++piece) {
    bool any = false;
    for (TileWork& work : works) any |= work.Prepare(work.first_piece(unit.split) + piece);
    if (!any) continue;
    call.ops.add_piece(call.pool.tile(),
                       works.front().TilesOf(works.front().first_piece(unit.split) + piece),
                       static_cast<int>(lanes), memory.operands, memory.ranges, memory.state);
  }
  for (size_t i = 0; i < works.size(); ++i) {
    works[i].StorePartials(PartialsOf(call, tile_at(tiles[i]), head, unit.split));
  }
}

void RunUnit(const Call& call, const AttentionUnit& unit, int32_t head, AttentionScratch& scratch) {
  if (unit.group != AttentionUnit::kNoGroup) return RunGroup(call, unit, head, scratch);
  const RowTile& tile = call.plan.tiles()[static_cast<size_t>(unit.tile)];
  TileWork work(call, unit.tile, head, {call.lanes(tile), call.width, scratch});
  if (unit.split != AttentionUnit::kWholeTile) {
    work.RunSplit(unit.split);
    work.StorePartials(PartialsOf(call, tile, head, unit.split));
    return;
  }
  work.ClearTotals();
  for (int32_t split = 0; split < CpuAttentionPlan::SplitsOf(tile); ++split) {
    work.RunSplit(split);
    work.MergeSplit(split);
  }
  work.Finish();
}

void MergeTile(const Call& call, int32_t index, int32_t head, AttentionScratch& scratch) {
  const RowTile& tile = call.plan.tiles()[static_cast<size_t>(index)];
  TileWork work(call, index, head, {call.lanes(tile), call.width, scratch});
  work.ClearTotals();
  for (int32_t split = 0; split < CpuAttentionPlan::SplitsOf(tile); ++split) {
    work.MergePartials(split, PartialsOf(call, tile, head, split));
  }
  work.Finish();
}

// The split tiles among `units`.
std::vector<int32_t> SplitTiles(const Call& call, const std::vector<AttentionUnit>& units) {
  std::vector<int32_t> tiles;
  for (const AttentionUnit& unit : units) {
    if (unit.split != 0) continue;
    if (unit.group == AttentionUnit::kNoGroup) {
      tiles.push_back(unit.tile);
    } else {
      const std::vector<int32_t>& group = call.plan.groups()[static_cast<size_t>(unit.group)];
      tiles.insert(tiles.end(), group.begin(), group.end());
    }
  }
  return tiles;
}

// A few microseconds for few tiles: then on the caller's thread.
void MergeSplitTiles(const Call& call, const std::vector<AttentionUnit>& units,
                     ThreadPool& threads) {
  const std::vector<int32_t> tiles = SplitTiles(call, units);
  const int32_t heads = call.pool.layout().kv_heads;
  constexpr size_t kWorthThreads = 8;
  const auto merge = [&](int64_t tile, int thread) {
    for (int32_t head = 0; head < heads; ++head) {
      MergeTile(call, tiles[static_cast<size_t>(tile)], head,
                call.plan.scratch()[static_cast<size_t>(thread)]);
    }
  };
  if (tiles.size() >= kWorthThreads) {
    threads.ParallelFor(static_cast<int64_t>(tiles.size()), merge);
  } else {
    for (size_t tile = 0; tile < tiles.size(); ++tile) merge(static_cast<int64_t>(tile), 0);
  }
}

// Head by head: one head's keys and values of a sequence stay in a core's cache.
void RunUnits(const Call& call, const std::vector<AttentionUnit>& units, ThreadPool& threads) {
  const auto count = static_cast<int64_t>(units.size());
  std::vector<AttentionScratch>& scratch = call.plan.scratch();
  threads.ParallelFor(count * call.pool.layout().kv_heads, [&](int64_t task, int thread) {
    RunUnit(call, units[static_cast<size_t>(task % count)], static_cast<int32_t>(task / count),
            scratch[static_cast<size_t>(thread)]);
  });
  if (call.plan.partial_rows() > 0) MergeSplitTiles(call, units, threads);
}

// The same in waves, for the weights of wanted rows.
void RunWaves(Call call, ThreadPool& threads) {
  const KeptScores kept(call.args, call.group, threads.threads());
  call.kept = &kept;
  const int64_t query_heads = int64_t{call.pool.layout().kv_heads} * call.group;
  for (const KeptScores::Wave& wave : kept.waves()) {
    RunUnits(call, wave.units, threads);
    threads.ParallelFor(query_heads, [&](int64_t head, int) {
      kept.AddMass(call.ops, wave, static_cast<int32_t>(head));
    });
  }
}

void CheckShapes(const AttentionArgs& args) {
  const KvLayout& layout = args.pool->layout();
  KVASIR_CHECK(args.plan != nullptr && args.batch != nullptr);
  KVASIR_CHECK(args.q.cols % (int64_t{layout.head_dim} * layout.kv_heads) == 0);
  KVASIR_CHECK(args.out.rows == args.q.rows && args.out.cols == args.q.cols);
  KVASIR_CHECK(args.q.rows == args.batch->rows());
  KVASIR_CHECK(&static_cast<const CpuAttentionPlan&>(*args.plan).batch() == args.batch);
  KVASIR_CHECK(args.rope == nullptr || args.rope->rotary_dims <= layout.head_dim);
  CheckMassRanges(args.mass, *args.batch);
}

}  // namespace

const AttentionOps& AttentionOpsFor(Isa isa, ComputeType compute) {
  KVASIR_CHECK(isa != Isa::kAuto);
  if (isa == Isa::kAvx512) {
    return compute == ComputeType::kInt8 ? kAttentionPairsAvx512 : kAttentionAvx512;
  }
  return isa == Isa::kAvx2 ? kAttentionAvx2 : kAttentionScalar;
}

void CpuAttention(const AttentionOps& ops, ThreadPool& threads, const AttentionArgs& args) {
  CheckShapes(args);
  const auto& plan = static_cast<const CpuAttentionPlan&>(*args.plan);
  const auto rotations =
      static_cast<const CpuKvPool&>(*args.pool).RotationsFor(args.rope, plan.rotations());
  const Call call(ops, args, *rotations);
  const int64_t heads = args.pool->layout().kv_heads;
  plan.scratch().resize(static_cast<size_t>(threads.threads()));
  plan.partials().resize(
      static_cast<size_t>(plan.partial_rows() * heads * call.group * call.partial_floats()));
  if (args.mass.empty()) return RunUnits(call, plan.units(), threads);
  RunWaves(call, threads);
}

}  // namespace kvasir
