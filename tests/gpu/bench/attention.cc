// Attention of one layer in Llama-3-8B's shape: decode in keys and values read, prefill in
// operations.
#include <vector>

#include "tests/gpu/bench/card.h"
#include "tests/gpu/bench/kv_planes.h"
#include "tests/gpu/bench/random_model.h"

namespace kvasir::bench {
namespace {

struct Heads {
  int32_t kv_heads = 8, group = 4, head_dim = 128;
  int64_t q_width() const { return int64_t{kv_heads} * group * head_dim; }
};

// Sequences of `context` keys each, of which the last `rows` are the step's.
struct Scene {
  int32_t sequences = 1, context = 1, rows = 1;
};

StepBatch BatchOf(const Scene& scene) {
  StepBatch batch;
  for (int32_t s = 0; s < scene.sequences; ++s) {
    const int32_t row_begin = batch.rows();
    const auto first_block = static_cast<int32_t>(batch.block_table.size());
    for (int32_t block = 0; block < BlocksFor(scene.context); ++block) {
      batch.block_table.push_back(first_block + block);
    }
    for (int32_t row = scene.context - scene.rows; row < scene.context; ++row) {
      batch.token_ids.push_back(0);
      batch.positions.push_back(row);
      batch.local_positions.push_back(row);
      batch.slots.push_back(first_block * kBlockTokens + row);
    }
    batch.segments.push_back({0, scene.context, first_block});
    batch.sequences.push_back({row_begin, batch.rows(), s, s + 1});
  }
  return batch;
}

// Keys and values of every block that the batch names.
Status Fill(Backend& backend, KvPool& pool, const StepBatch& batch) {
  constexpr int32_t kTokens = 2048;
  const KvPlanes planes = KvPlanes::Plain(pool.layout(), kTokens, 17);
  for (size_t at = 0; at < batch.block_table.size();) {
    const size_t left = batch.block_table.size() - at;
    const auto tokens = static_cast<int32_t>(std::min<size_t>(left * kBlockTokens, kTokens));
    const std::span<const int32_t> blocks(batch.block_table.data() + at,
                                          static_cast<size_t>(BlocksFor(tokens)));
    KVASIR_RETURN_IF_ERROR(backend.LoadKv(pool, 0, planes.Layer(0, tokens), blocks, nullptr));
    at += blocks.size();
  }
  return Status::Ok();
}

Result<double> SecondsOf(const Bench& bench, const Heads& heads, const Scene& scene, DType dtype) {
  KVASIR_ASSIGN_OR_RETURN(const std::shared_ptr<Backend> backend, OpenCard(CudaCompute::kBf16));
  const StepBatch batch = BatchOf(scene);
  const auto blocks = static_cast<int32_t>(batch.block_table.size());
  const KvLayout layout = {1, heads.kv_heads, heads.head_dim, dtype};
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<KvPool> pool,
                          backend->CreateKvPool(layout, blocks));
  KVASIR_RETURN_IF_ERROR(Fill(*backend, *pool, batch));
  const std::vector<float> values = RandomValues(batch.rows() * heads.q_width(), 19);
  const size_t bytes = values.size() * sizeof(float);
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Buffer> q, backend->Allocate(bytes));
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<Buffer> out, backend->Allocate(bytes));
  backend->Upload(values.data(), q->data(), bytes);
  const RopeTable rope = RopeTable::Plain(RopePairing::kHalfSplit, heads.head_dim, 500000);
  const std::unique_ptr<AttentionPlan> plan = backend->PlanAttention(batch);
  AttentionArgs args;
  args.pool = pool.get();
  args.q = F32View(q->f32(), batch.rows(), heads.q_width());
  args.scale = 0.1f;
  args.rope = &rope;
  args.batch = &batch;
  args.plan = plan.get();
  args.out = F32View(out->f32(), batch.rows(), heads.q_width());
  KVASIR_ASSIGN_OR_RETURN(const Finisher finisher, Finisher::Create(*backend));
  return TimeOf(
      bench,
      [&] {
        backend->Attention(args);
        return Status::Ok();
      },
      [&] { return finisher.Finish(); });
}

Result<double> Decode(Bench& bench, const Heads& heads, const Scene& scene, DType dtype) {
  KVASIR_ASSIGN_OR_RETURN(const double seconds, SecondsOf(bench, heads, scene, dtype));
  const KvLayout layout = {1, heads.kv_heads, heads.head_dim, dtype};
  const double bytes =
      static_cast<double>(layout.BytesPerBlock()) / kBlockTokens * scene.sequences * scene.context;
  const std::string name = std::string("decode, ") + TypeName(dtype) + " KV, " +
                           std::to_string(scene.sequences) + " x " + std::to_string(scene.context);
  return bench.report.AddRate(name, bytes, seconds, "TB/s");
}

Status Prefill(Bench& bench, const Heads& heads, int32_t tokens) {
  KVASIR_ASSIGN_OR_RETURN(const double seconds,
                          SecondsOf(bench, heads, {1, tokens, tokens}, DType::kBF16));
  const double rows = tokens;
  const double work = 4.0 * static_cast<double>(heads.q_width()) * rows * (rows + 1) / 2;
  bench.report.AddRate("prefill, " + std::to_string(tokens) + " tokens", work, seconds, "TFLOP/s");
  return Status::Ok();
}

}  // namespace

Status RunAttention(Bench& bench) {
  const Heads heads = bench.smoke ? Heads{1, 2, 64} : Heads{};
  const std::vector<Scene> decodes =
      bench.smoke ? std::vector<Scene>{{2, 80, 1}}
                  : std::vector<Scene>{
                        {8, 32768, 1}, {1, 32768, 1}, {1, 4096, 1}, {32, 2048, 1}, {128, 2048, 1}};
  for (size_t i = 0; i < decodes.size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(const double rate, Decode(bench, heads, decodes[i], DType::kBF16));
    if (i > 0) continue;
    bench.report.Expect({"attention of " + std::to_string(decodes[i].sequences) + " x " +
                             std::to_string(decodes[i].context) + " of the copy bandwidth",
                         "%", 100 * rate / bench.ceilings.copy, 85});
  }
  for (const int32_t tokens :
       bench.smoke ? std::vector<int32_t>{48} : std::vector<int32_t>{2048, 8192, 32768}) {
    KVASIR_RETURN_IF_ERROR(Prefill(bench, heads, tokens));
  }
  return Decode(bench, heads, decodes.front(), DType::kI8).status();
}

}  // namespace kvasir::bench
