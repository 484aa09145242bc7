#include "kernels/cuda/attention_step.h"

#include <cstring>
#include <vector>

namespace kvasir::cuda {
namespace {

// Arrays one behind the other, each aligned to 16 bytes, copied as one.
class Blob {
 public:
  template <typename T>
  size_t Add(const std::vector<T>& values) {
    const size_t begin = (bytes_.size() + 15) / 16 * 16, size = values.size() * sizeof(T);
    bytes_.resize(begin + size);
    if (size > 0) std::memcpy(bytes_.data() + begin, values.data(), size);
    return begin;
  }
  const std::vector<char>& bytes() const { return bytes_; }

 private:
  std::vector<char> bytes_;
};

std::vector<Segment> SegmentsOf(const StepBatch& batch) {
  std::vector<Segment> segments;
  for (const SegmentRef& s : batch.segments) {
    segments.push_back({s.base, s.length, s.first_block, s.context ? 1 : 0});
  }
  return segments;
}

template <typename T>
const T* At(const Scratch& memory, size_t offset) {
  return reinterpret_cast<const T*>(memory.As<char>() + offset);
}

const SequenceSpan& SequenceOf(const StepBatch& batch, const MassRange& range) {
  size_t s = 0;
  while (batch.sequences[s].row_end <= range.row_begin) ++s;
  return batch.sequences[s];
}

// Brings what a range's sums are so far to the card, adds and fetches them.
Status GatherMass(const AttentionContext& context, const AttentionCall& call,
                  const StepBatch& batch, const MassRange& range) {
  if (range.row_begin == range.row_end) return Status::Ok();
  const int64_t heads = int64_t{call.pool->geometry().kv_heads} * call.group;
  const size_t bytes = static_cast<size_t>(heads * range.stride) * sizeof(float);
  KVASIR_ASSIGN_OR_RETURN(const Scratch sums, context.buffers->Take(bytes));
  KVASIR_RETURN_IF_ERROR(CopyToDevice(sums.As<float>(), range.mass, bytes, context.stream));
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
  KVASIR_RETURN_IF_ERROR(CopyToHost(range.mass, sums.As<float>(), bytes, context.stream));
  return Synchronize(context.stream);
}

}  // namespace

Result<std::unique_ptr<CudaAttentionPlan::Made>> CudaAttentionPlan::Make(
    const PlanOptions& options) const {
  const AttentionTables tables = PlanTables(batch_, options);
  Blob blob;
  const size_t pieces = blob.Add(tables.pieces), tiles = blob.Add(tables.tiles);
  const size_t small = blob.Add(tables.small), large = blob.Add(tables.large);
  const size_t merges = blob.Add(tables.merges), scales = blob.Add(tables.scales);
  const size_t segments = blob.Add(SegmentsOf(batch_)), positions = blob.Add(batch_.positions);
  const size_t block_table = blob.Add(batch_.block_table);
  auto made = std::make_unique<Made>();
  KVASIR_ASSIGN_OR_RETURN(made->memory, context_.buffers->Take(blob.bytes().size()));
  KVASIR_RETURN_IF_ERROR(CopyToDevice(made->memory.As<void>(), blob.bytes().data(),
                                      blob.bytes().size(), context_.stream));
  made->options = options;
  made->partials = tables.partials;
  made->rotations = tables.rotations;
  DeviceTables& t = made->tables;
  t.pieces = At<Piece>(made->memory, pieces);
  t.tiles = At<Tile>(made->memory, tiles);
  t.small = At<Unit>(made->memory, small);
  t.large = At<Unit>(made->memory, large);
  t.merges = At<int32_t>(made->memory, merges);
  t.scales = At<SequenceScale>(made->memory, scales);
  t.segments = At<Segment>(made->memory, segments);
  t.positions = At<int32_t>(made->memory, positions);
  t.block_table = At<int32_t>(made->memory, block_table);
  t.small_count = static_cast<int32_t>(tables.small.size());
  t.large_count = static_cast<int32_t>(tables.large.size());
  t.merge_count = static_cast<int32_t>(tables.merges.size());
  return made;
}

Result<const CudaAttentionPlan::Made*> CudaAttentionPlan::For(int32_t group,
                                                              int32_t kv_heads) const {
  for (const auto& made : made_) {
    if (made->options.group == group && made->options.kv_heads == kv_heads) return made.get();
  }
  KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<Made> made,
                          Make({group, kv_heads, context_.multiprocessors}));
  made_.push_back(std::move(made));
  return made_.back().get();
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
