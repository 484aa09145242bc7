// A step that fails is repeated one sequence at a time: the failure reaches the guilty alone.
#include "engine/step_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "tests/engine/engine_harness.h"

namespace kvasir {
namespace {

using test::Answer;
using test::Ask;
using test::Fresh;
using test::Ids;
using test::RunAll;
using test::RunOne;

constexpr int32_t kOutOfMemory = 77, kBroken = 78;

// Another backend that fails when it is asked to embed certain tokens.
class FaultyBackend final : public Backend {
 public:
  explicit FaultyBackend(std::shared_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string_view name() const override { return inner_->name(); }
  Result<std::unique_ptr<Buffer>> Allocate(size_t bytes) override {
    return inner_->Allocate(bytes);
  }
  void Upload(const void* host, void* device, size_t bytes) override {
    inner_->Upload(host, device, bytes);
  }
  void Download(const void* device, void* host, size_t bytes) override {
    inner_->Download(device, host, bytes);
  }
  Result<std::unique_ptr<PackedWeight>> Pack(DType dtype, const void* data, int64_t n,
                                             int64_t k) override {
    return inner_->Pack(dtype, data, n, k);
  }
  Result<std::unique_ptr<KvPool>> CreateKvPool(const KvLayout& layout, int32_t blocks,
                                               std::span<const float> key_balance) override {
    return inner_->CreateKvPool(layout, blocks, key_balance);
  }
  void CopyBlock(KvPool& pool, int32_t from, int32_t to) override {
    inner_->CopyBlock(pool, from, to);
  }
  void LoadKv(KvPool& pool, int32_t layer, const KvLayerPlanes& planes,
              std::span<const int32_t> block_ids, const RopeTable* rope) override {
    inner_->LoadKv(pool, layer, planes, block_ids, rope);
  }
  void SaveKv(const TensorView& k, const TensorView& v, int32_t row_begin, int32_t row_end,
              float* host_k, float* host_v) override {
    inner_->SaveKv(k, v, row_begin, row_end, host_k, host_v);
  }
  void ReadKv(const KvPool& pool, int32_t layer, std::span<const int32_t> block_ids, int32_t tokens,
              float* host_k, float* host_v) override {
    inner_->ReadKv(pool, layer, block_ids, tokens, host_k, host_v);
  }
  void BeginStep() override { inner_->BeginStep(); }
  void EndStep() override { inner_->EndStep(); }
  void Embed(const PackedWeight& table, std::span<const int32_t> token_ids, float scale,
             const TensorView& out) override {
    const auto holds = [&](int32_t id) {
      return std::find(token_ids.begin(), token_ids.end(), id) != token_ids.end();
    };
    if (holds(kOutOfMemory)) throw std::bad_alloc();
    if (holds(kBroken)) throw std::runtime_error("device lost a wheel");
    inner_->Embed(table, token_ids, scale, out);
  }
  void Norm(NormKind kind, const TensorView& x, int64_t width, const float* weight,
            const float* bias, float eps, const TensorView& out) override {
    inner_->Norm(kind, x, width, weight, bias, eps, out);
  }
  void MatMul(const TensorView& x, const PackedWeight& w, const float* bias, bool accumulate,
              const TensorView& out) override {
    inner_->MatMul(x, w, bias, accumulate, out);
  }
  void Activate(ActivationKind kind, const TensorView& gate, const TensorView& up,
                const TensorView& out) override {
    inner_->Activate(kind, gate, up, out);
  }
  void Add(const TensorView& x, const TensorView& y) override { inner_->Add(x, y); }
  void GatherRows(const TensorView& x, std::span<const int32_t> rows,
                  const TensorView& out) override {
    inner_->GatherRows(x, rows, out);
  }
  void AppendKv(KvPool& pool, int32_t layer, const TensorView& k, const TensorView& v,
                const StepBatch& batch, const RopeTable* rope) override {
    inner_->AppendKv(pool, layer, k, v, batch, rope);
  }
  std::unique_ptr<AttentionPlan> PlanAttention(const StepBatch& batch) override {
    return inner_->PlanAttention(batch);
  }
  void Attention(const AttentionArgs& args) override { inner_->Attention(args); }

 private:
  std::shared_ptr<Backend> inner_;
};

test::BackendChoice Faulty() {
  return {"Faulty", [](int threads) {
            return std::make_shared<FaultyBackend>(test::BestCpu().create(threads));
          }};
}

TEST(StepRunner, AFailingSequenceFailsAlone) {
  const test::Loaded loaded = test::LoadTiny(Faulty(), {.tied = false});
  auto engine = test::MakeEngine(loaded, test::ExactOptions());
  const Ids prompt = {10, 11, 12, 13};
  const Answer expected = RunOne(*engine, Ask({Fresh(prompt)}, 5));
  const auto answers =
      RunAll(*engine, {Ask({Fresh(prompt)}, 5), Ask({Fresh({20, kOutOfMemory, 21})}, 5),
                       Ask({Fresh(prompt)}, 5), Ask({Fresh({kBroken})}, 5)});
  for (const size_t good : {0, 2}) {
    EXPECT_TRUE(answers[good].end.status.ok()) << answers[good].end.status.ToString();
    EXPECT_EQ(answers[good].tokens, expected.tokens);
    EXPECT_TRUE(test::SameBits(answers[good].logits[0], expected.logits[0]));
  }
  EXPECT_EQ(answers[1].end.status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(answers[3].end.status.code(), StatusCode::kInternal);
  EXPECT_EQ(engine->stats().blocks_free, engine->stats().blocks_total);
}

TEST(StepRunner, ASharedStepCapturesAsEachAlone) {
  const test::Loaded loaded = test::LoadTiny(Faulty(), {.tied = false});
  auto engine = test::MakeEngine(loaded, test::ExactOptions());
  const auto capture = [&](const Ids& tail) {
    Request request = Ask({Fresh({10, 11, 12}), Fresh(tail)}, 0);
    request.capture = std::make_shared<KvCapture>();
    return request;
  };
  const Request alone = capture({30, 31, 32, 33});
  RunOne(*engine, alone, false);
  // The failing one makes the step fall apart into parts, whose rows are numbered anew.
  const Request shared = capture({30, 31, 32, 33});
  const auto answers =
      RunAll(*engine, {capture({40, 41}), shared, Ask({Fresh({kBroken})}, 0)}, false);
  EXPECT_TRUE(answers[1].end.status.ok());
  EXPECT_TRUE(test::SameBits(alone.capture->k, shared.capture->k));
  EXPECT_TRUE(test::SameBits(alone.capture->v, shared.capture->v));
}

}  // namespace
}  // namespace kvasir
