#include "kernels/cuda/attention_step.h"

#include <cstring>
#include <vector>

namespace kvasir::cuda {
namespace {

std::vector<Segment> SegmentsOf(const StepBatch& batch) {
  std::vector<Segment> segments;
  for (const SegmentRef& s : batch.segments) {
    segments.push_back({s.base, s.length, s.first_block, s.context ? 1 : 0});
  }
  return segments;
}

template <typename T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

const SequenceSpan& SequenceOf(const StepBatch& batch, const MassRange& range) {
  size_t s = 0;
  while (batch.sequences[s].row_end <= range.row_begin) ++s;
  return batch.sequences[s];
}

// Queues what brings a range's sums so far to the card, adds to them and fetches them.
Status GatherMass(const AttentionContext& context, const AttentionCall& call,
                  const StepBatch& batch, const MassRange& range) {
  if (range.row_begin == range.row_end) return Status::Ok();
  const int64_t heads = int64_t{call.pool->geometry().kv_heads} * call.group;
  const size_t bytes = static_cast<size_t>(heads * range.stride) * sizeof(float);
  if (context.fetches->IsWanted(range.mass, bytes)) {
    KVASIR_RETURN_IF_ERROR(context.fetches->Finish());
  }
  KVASIR_ASSIGN_OR_RETURN(char* staged, context.fetches->Stage(bytes));
  KVASIR_ASSIGN_OR_RETURN(const Scratch sums, context.buffers->Take(bytes));
  std::memcpy(staged, range.mass, bytes);
  KVASIR_RETURN_IF_ERROR(CopyToDevice(sums.As<float>(), staged, bytes, context.stream));
  const SequenceSpan& sequence = SequenceOf(batch, range);
  MassCall mass;
  mass.row_begin = range.row_begin;
  mass.row_end = range.row_end;
  mass.segment_begin = sequence.segment_begin;
  mass.segment_end = sequence.segment_end;
  mass.sequence = static_cast<int32_t>(&sequence - batch.sequences.data());
  mass.rounded = context.matrix_units && FitsMatrixUnits(call.pool->geometry());
  mass.mass = sums.As<float>();
  mass.stride = range.stride;
  KVASIR_RETURN_IF_ERROR(AddMass(context.stream, call, mass));
  KVASIR_RETURN_IF_ERROR(CopyToHost(staged, sums.As<float>(), bytes, context.stream));
  context.fetches->HandOut(staged, range.mass, bytes);
  return Status::Ok();
}

DeviceTables TablesOn(const StepTables& step, const AttentionTables& tables) {
  DeviceTables t;
  t.pieces = step.At<Piece>(StepTable::kPieces);
  t.tiles = step.At<Tile>(StepTable::kTiles);
  t.small = step.At<Unit>(StepTable::kSmallUnits);
  t.large = step.At<Unit>(StepTable::kLargeUnits);
  t.merges = step.At<int32_t>(StepTable::kMerges);
  t.scales = step.At<SequenceScale>(StepTable::kScales);
  t.segments = step.At<Segment>(StepTable::kSegments);
  t.positions = step.At<int32_t>(StepTable::kPositions);
  t.block_table = step.At<int32_t>(StepTable::kBlockTable);
  t.small_count = static_cast<int32_t>(tables.small.size());
  t.large_count = static_cast<int32_t>(tables.large.size());
  t.merge_count = static_cast<int32_t>(tables.merges.size());
  return t;
}

}  // namespace

Status CudaAttentionPlan::Upload(const PlanOptions& options, const AttentionTables& tables) const {
  const std::vector<Segment> segments = SegmentsOf(batch_);
  StepTables::Contents contents;
  const auto put = [&](StepTable table, std::span<const std::byte> bytes) {
    contents[static_cast<size_t>(table)] = bytes;
  };
  put(StepTable::kTokens, BytesOf(batch_.token_ids));
  put(StepTable::kPositions, BytesOf(batch_.positions));
  put(StepTable::kLocalPositions, BytesOf(batch_.local_positions));
  put(StepTable::kSlots, BytesOf(batch_.slots));
  put(StepTable::kLogitRows, BytesOf(batch_.logit_rows));
  put(StepTable::kSegments, BytesOf(segments));
  put(StepTable::kScales, BytesOf(tables.scales));
  put(StepTable::kPieces, BytesOf(tables.pieces));
  put(StepTable::kTiles, BytesOf(tables.tiles));
  put(StepTable::kSmallUnits, BytesOf(tables.small));
  put(StepTable::kLargeUnits, BytesOf(tables.large));
  put(StepTable::kMerges, BytesOf(tables.merges));
  put(StepTable::kBlockTable, BytesOf(batch_.block_table));
  made_.upload = 0;
  KVASIR_RETURN_IF_ERROR(context_.step->Upload(contents));
  made_ = {options, TablesOn(*context_.step, tables), tables.partials, tables.rotations,
           context_.step->uploads()};
  return Status::Ok();
}

Result<const CudaAttentionPlan::Made*> CudaAttentionPlan::For(int32_t group,
                                                              int32_t kv_heads) const {
  if (!Has(group, kv_heads)) {
    const PlanOptions options = {group, kv_heads, context_.multiprocessors};
    KVASIR_RETURN_IF_ERROR(Upload(options, PlanTables(batch_, options)));
  }
  return &made_;
}

bool CudaAttentionPlan::Has(int32_t group, int32_t kv_heads) const {
  return made_.upload != 0 && made_.upload == context_.step->uploads() &&
         made_.options.group == group && made_.options.kv_heads == kv_heads;
}

Result<StepShape> CudaAttentionPlan::MakeRepeatable(int32_t group, int32_t kv_heads) const {
  const PlanOptions options = {group, kv_heads, context_.multiprocessors};
  AttentionTables tables = PlanTables(batch_, options);
  const StepShape shape = RoundUp(batch_.rows(), &tables);
  KVASIR_RETURN_IF_ERROR(Upload(options, tables));
  return shape;
}

Status RunAttention(const AttentionContext& context, const AttentionArgs& args) {
  AttentionCall call;
  call.pool = static_cast<const CudaKvPool*>(args.pool);
  const KvGeometry& geometry = call.pool->geometry();
  call.layer = args.layer;
  call.q = args.q;
  call.out = args.out;
  call.scale = args.scale;
  call.window = args.window;
  call.group = static_cast<int32_t>(args.q.cols / (int64_t{geometry.head_dim} * geometry.kv_heads));
  const auto& plan = static_cast<const CudaAttentionPlan&>(*args.plan);
  KVASIR_ASSIGN_OR_RETURN(const CudaAttentionPlan::Made* made,
                          plan.For(call.group, geometry.kv_heads));
  call.tables = made->tables;
  call.partials = made->partials;
  KVASIR_ASSIGN_OR_RETURN(call.rotations,
                          context.rotations->Get(args.rope, made->rotations, context.stream));
  const auto partials = static_cast<size_t>(made->partials * geometry.kv_heads);
  KVASIR_ASSIGN_OR_RETURN(
      const Scratch partial_out,
      context.buffers->Take(partials * static_cast<size_t>(geometry.head_dim) * sizeof(float)));
  KVASIR_ASSIGN_OR_RETURN(const Scratch partial_stats,
                          context.buffers->Take(partials * 2 * sizeof(float)));
  call.partial_out = partial_out.As<float>();
  call.partial_stats = partial_stats.As<float>();
  Scratch stats;
  if (!args.mass.empty()) {
    const int64_t values = 2 * args.q.rows * geometry.kv_heads * call.group;
    KVASIR_ASSIGN_OR_RETURN(stats,
                            context.buffers->Take(static_cast<size_t>(values) * sizeof(float)));
    call.stats = stats.As<float>();
  }
  if (context.matrix_units && FitsMatrixUnits(geometry)) {
    KVASIR_RETURN_IF_ERROR(AttentionOnMatrixUnits(context.stream, call));
  } else {
    KVASIR_RETURN_IF_ERROR(AttentionInFp32(context.stream, call));
  }
  KVASIR_RETURN_IF_ERROR(MergeSplits(context.stream, call));
  for (const MassRange& range : args.mass) {
    KVASIR_RETURN_IF_ERROR(GatherMass(context, call, plan.batch(), range));
  }
  return Status::Ok();
}

}  // namespace kvasir::cuda
