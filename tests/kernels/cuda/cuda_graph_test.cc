// Recorded steps: a decode step that is launched as a graph computes the bits that it computes
// kernel by kernel, whatever changes between steps: positions, tokens, block tables, how many rows
// there are, and where memory lies.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/step_graphs.h"
#include "tests/kernels/attention_scene.h"
#include "tests/kernels/cuda_emulation/device.h"

namespace kvasir {
namespace {

constexpr int32_t kLayers = 2, kHeads = 4, kKvHeads = 2, kDim = 64, kWidth = kHeads * kDim;
constexpr int32_t kVocab = 50, kMostRows = 32, kBlocks = 400, kSequences = 12;

std::unique_ptr<Backend> Make(CudaCompute compute, bool graphs) {
  return std::move(*CreateCudaBackend({.compute = compute, .graphs = graphs}));
}

// A sequence of one stored context and an answer that grows behind it.
struct Line {
  int32_t context = 0, answered = 0;
  std::vector<int32_t> context_blocks, answer_blocks;
};

// Just enough of a model to call every operator in the order of Forward.
class GraphModel {
 public:
  GraphModel(Backend& backend, DType pool_type)
      : backend_(backend), rope_(RopeTable::Plain(RopePairing::kHalfSplit, kDim, 10000)) {
    for (auto* tensor : {&x_, &q_, &out_, &last_}) tensor->emplace(backend, kMostRows, kWidth);
    for (auto* tensor : {&k_, &v_}) tensor->emplace(backend, kMostRows, kKvHeads * kDim);
    logits_.emplace(backend, kMostRows, kVocab);
    square_ = Weight(kWidth);
    key_ = Weight(kKvHeads * kDim);
    head_ = Weight(kVocab);
    pool_ = std::move(*backend.CreateKvPool({kLayers, kKvHeads, kDim, pool_type}, kBlocks));
    int32_t block = 0;
    for (int32_t i = 0; i < kSequences; ++i) {
      Line& line = lines_.emplace_back();
      line.context = i % 4 == 1 ? 700 + 90 * i : 13 + 25 * i;  // some in several splits
      while (int32_t(line.context_blocks.size()) < BlocksFor(line.context)) {
        line.context_blocks.push_back(block++ * 7 % kBlocks);
      }
      for (int32_t b = 0; b < 2; ++b) line.answer_blocks.push_back(block++ * 7 % kBlocks);
      KVASIR_CHECK(block <= kBlocks);
      Load(line);
    }
  }

  // One more token of each of `lines`, in this order. Logits [lines][kVocab].
  std::vector<float> Decode(const std::vector<int32_t>& lines, bool waits = false) {
    const StepBatch batch = BatchOf(lines);
    std::vector<float> logits(lines.size() * kVocab);
    backend_.BeginStep();
    const StepKey key = {this, pool_.get(), nullptr};
    const Status status = backend_.RunStep(batch, key, [&](const StepBatch& rows) {
      Queue(rows);
      if (waits) backend_.Download(logits_->view().data, logits.data(), 4);
      return Status::Ok();
    });
    EXPECT_TRUE(status.ok());
    backend_.Download(logits_->view().data, logits.data(), logits.size() * sizeof(float));
    backend_.EndStep();
    for (const int32_t line : lines) ++lines_[size_t(line)].answered;
    return logits;
  }

  // Other KV in place of a line's stored context.
  void Reload(int32_t line) { Load(lines_[size_t(line)]); }

  // All KV of a line's answer, both layers.
  std::vector<float> AnswerKv(int32_t line) {
    const Line& of = lines_[size_t(line)];
    const size_t values = size_t(of.answered) * kKvHeads * kDim;
    std::vector<float> kv(2 * kLayers * values);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      float* const k = kv.data() + 2 * size_t(layer) * values;
      EXPECT_TRUE(
          backend_.ReadKv(*pool_, layer, of.answer_blocks, of.answered, k, k + values).ok());
    }
    return kv;
  }

 private:
  std::unique_ptr<PackedWeight> Weight(int64_t outputs) {
    const auto values = Normal(static_cast<size_t>(outputs * kWidth), random_, 0.08f);
    return std::move(*backend_.Pack(DType::kF32, values.data(), outputs, kWidth));
  }
  void Load(const Line& line) {
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      const size_t values = size_t(line.context) * kKvHeads * kDim;
      const auto k = Normal(values, random_), v = Normal(values, random_);
      EXPECT_TRUE(backend_
                      .LoadKv(*pool_, layer,
                              {DType::kF32, line.context, k.data(), nullptr, v.data(), nullptr},
                              line.context_blocks, &rope_)
                      .ok());
    }
  }

  StepBatch BatchOf(const std::vector<int32_t>& lines) {
    StepBatch batch;
    const auto add_segment = [&](int32_t base, int32_t length, const std::vector<int32_t>& blocks) {
      batch.segments.push_back({base, length, static_cast<int32_t>(batch.block_table.size())});
      batch.block_table.insert(batch.block_table.end(), blocks.begin(),
                               blocks.begin() + BlocksFor(length));
    };
    for (const int32_t index : lines) {
      const Line& line = lines_[size_t(index)];
      const int32_t row = batch.rows(), segment = int32_t(batch.segments.size());
      batch.token_ids.push_back((index * 11 + line.answered * 3) % kVocab);
      batch.positions.push_back(line.context + line.answered);
      batch.local_positions.push_back(line.answered);
      batch.slots.push_back(line.answer_blocks[size_t(line.answered / kBlockTokens)] *
                                kBlockTokens +
                            line.answered % kBlockTokens);
      batch.logit_rows.push_back(row);
      add_segment(0, line.context, line.context_blocks);
      add_segment(line.context, line.answered + 1, line.answer_blocks);
      batch.sequences.push_back({row, row + 1, segment, segment + 2});
    }
    return batch;
  }

  TensorView Rows(const std::optional<Tensor>& tensor, const StepBatch& batch) const {
    TensorView view = tensor->view();
    view.rows = batch.rows();
    return view;
  }

  void Queue(const StepBatch& batch) {
    const auto plan = backend_.PlanAttention(batch);
    const TensorView x = Rows(x_, batch), q = Rows(q_, batch), k = Rows(k_, batch),
                     v = Rows(v_, batch), out = Rows(out_, batch), last = Rows(last_, batch);
    backend_.Embed(*head_, batch.token_ids, 1.0f, x);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      backend_.MatMul(x, *square_, nullptr, false, q);
      backend_.MatMul(x, *key_, nullptr, false, k);
      backend_.MatMul(q, *key_, nullptr, false, v);
      backend_.AppendKv(*pool_, layer, k, v, batch, &rope_);
      backend_.Attention({pool_.get(), layer, q, 0.1f, 0, &rope_, &batch, plan.get(), out});
      backend_.MatMul(out, *square_, nullptr, true, x);
    }
    backend_.GatherRows(x, batch.logit_rows, last);
    backend_.MatMul(last, *head_, nullptr, false, Rows(logits_, batch));
  }

  Backend& backend_;
  std::mt19937 random_{3};
  const RopeTable rope_;
  std::vector<Line> lines_;
  std::unique_ptr<PackedWeight> square_, key_, head_;
  std::unique_ptr<KvPool> pool_;
  std::optional<Tensor> x_, q_, k_, v_, out_, last_, logits_;
};

struct Graphs {
  size_t recordings, launches;
};
Graphs Since(const emulation::DeviceCalls& before) {
  const emulation::DeviceCalls now = emulation::CallsSoFar();
  return {now.recordings - before.recordings, now.graphs - before.graphs};
}

// Batches of one to eleven lines, the same sizes again and again with other lines.
std::vector<std::vector<int32_t>> ManySteps() {
  std::mt19937 random(17);
  std::vector<std::vector<int32_t>> steps;
  for (const int32_t size : {1, 3, 4, 11, 1, 4, 3, 10, 9, 1, 2, 4, 11, 1, 3}) {
    std::vector<int32_t> lines = RowRange(0, kSequences);
    std::shuffle(lines.begin(), lines.end(), random);
    lines.resize(size_t(size));
    steps.push_back(std::move(lines));
  }
  return steps;
}

class CudaGraphs : public testing::TestWithParam<CudaCompute> {};

TEST_P(CudaGraphs, RecordedStepsHaveTheBitsOfQueuedOnes) {
  const auto plain = Make(GetParam(), false), graphs = Make(GetParam(), true);
  GraphModel want(*plain, DType::kBF16), got(*graphs, DType::kBF16);
  const auto before = emulation::CallsSoFar();
  for (const auto& lines : ManySteps()) {
    SCOPED_TRACE(testing::Message() << lines.size() << " rows");
    EXPECT_EQ(got.Decode(lines), want.Decode(lines));
  }
  for (int32_t line = 0; line < kSequences; ++line) {
    EXPECT_EQ(got.AnswerKv(line), want.AnswerKv(line)) << line;
  }
  EXPECT_TRUE(graphs->status().ok()) << graphs->status().message();
  const Graphs calls = Since(before);
  EXPECT_GE(calls.recordings, 2u);
  EXPECT_GT(calls.launches, calls.recordings);
}

// What is still being loaded when a graph is launched is there before the graph reads it.
TEST_P(CudaGraphs, LoadsUnderWayComeBeforeALaunch) {
  const auto plain = Make(GetParam(), false), graphs = Make(GetParam(), true);
  GraphModel want(*plain, DType::kI8), got(*graphs, DType::kI8);
  const std::vector<int32_t> lines = {4, 0, 3};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(got.Decode(lines), want.Decode(lines));
  for (const int32_t line : {0, 3, 4}) {
    want.Reload(line);
    const std::vector<float> expected = want.Decode(lines);
    const auto before = emulation::CallsSoFar();
    got.Reload(line);
    EXPECT_EQ(got.Decode(lines), expected) << "line " << line;
    const Graphs calls = Since(before);
    EXPECT_EQ(calls.recordings, 0u);
    EXPECT_EQ(calls.launches, 1u);
  }
}

INSTANTIATE_TEST_SUITE_P(Computes, CudaGraphs,
                         testing::Values(CudaCompute::kF32, CudaCompute::kBf16),
                         [](const auto& test) {
                           return test.param == CudaCompute::kF32 ? "f32" : "bf16";
                         });

// The first step is queued, the second recorded, and every one from it on launched.
TEST(CudaGraph, IsRecordedOnceForItsSize) {
  const auto backend = Make(CudaCompute::kF32, true);
  GraphModel model(*backend, DType::kF32);
  const std::vector<int32_t> lines = {0, 2, 3};
  model.Decode({4});  // its heads become known
  auto before = emulation::CallsSoFar();
  model.Decode(lines);
  EXPECT_EQ(Since(before).recordings, 0u);
  for (int i = 0; i < 4; ++i) model.Decode(lines);
  EXPECT_EQ(Since(before).recordings, 1u);
  EXPECT_EQ(Since(before).launches, 4u);
  model.Decode({0, 4, 3, 2});  // the same bucket
  EXPECT_EQ(Since(before).launches, 5u);
  before = emulation::CallsSoFar();
  model.Decode(lines);
  EXPECT_EQ(emulation::CallsSoFar().waits - before.waits, 1u);
  EXPECT_EQ(emulation::CallsSoFar().allocations, before.allocations);
  EXPECT_EQ(emulation::CallsSoFar().uploads - before.uploads, 1u);
}

TEST(CudaGraph, ItsKernelsOverlapUnlessTheyAreToldNotTo) {
  for (const bool overlapped : {true, false}) {
    const auto backend =
        *CreateCudaBackend({.compute = CudaCompute::kF32, .overlapped = overlapped});
    GraphModel model(*backend, DType::kF32);
    const auto before = emulation::CallsSoFar();
    for (int i = 0; i < 3; ++i) model.Decode({1, 3});
    EXPECT_EQ(Since(before).recordings, 1u);
    EXPECT_EQ(emulation::CallsSoFar().overlapped - before.overlapped, overlapped ? 1u : 0u);
  }
}

TEST(CudaGraph, IsForgottenWhenMemoryIsFreed) {
  const auto plain = Make(CudaCompute::kF32, false), graphs = Make(CudaCompute::kF32, true);
  GraphModel want(*plain, DType::kBF16), got(*graphs, DType::kBF16);
  const std::vector<int32_t> lines = {0, 5};
  for (int i = 0; i < 4; ++i) EXPECT_EQ(got.Decode(lines), want.Decode(lines));
  { const auto freed = graphs->Allocate(1000); }
  const auto before = emulation::CallsSoFar();
  EXPECT_EQ(got.Decode(lines), want.Decode(lines));
  EXPECT_EQ(Since(before).launches, 0u);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(got.Decode(lines), want.Decode(lines));
  EXPECT_EQ(Since(before).recordings, 1u);
  EXPECT_EQ(Since(before).launches, 2u);
}

TEST(CudaGraph, StepsThatCannotBeRecordedAreQueued) {
  const auto plain = Make(CudaCompute::kF32, false), graphs = Make(CudaCompute::kF32, true);
  GraphModel want(*plain, DType::kBF16), got(*graphs, DType::kBF16);
  const std::vector<int32_t> lines = {0, 5};
  const auto before = emulation::CallsSoFar();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(got.Decode(lines, /*waits=*/true), want.Decode(lines));
  EXPECT_EQ(Since(before).recordings, 1u);
  EXPECT_EQ(Since(before).launches, 0u);
  EXPECT_TRUE(graphs->status().ok()) << graphs->status().message();
  emulation::FailRecording(Internal("no graph"));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(got.Decode({1, 2, 4}), want.Decode({1, 2, 4}));
  emulation::FailRecording(Status::Ok());
  EXPECT_EQ(Since(before).launches, 0u);
  EXPECT_TRUE(graphs->status().ok()) << graphs->status().message();
}

TEST(CudaGraph, ALostCardIsSaid) {
  const auto backend = Make(CudaCompute::kF32, true);
  GraphModel model(*backend, DType::kF32);
  for (int i = 0; i < 4; ++i) model.Decode({0, 1});
  emulation::LoseDevice(Internal("unspecified launch failure"));
  const auto logits = model.Decode({0, 1});
  emulation::LoseDevice(Status::Ok());
  EXPECT_EQ(logits, std::vector<float>(logits.size(), 0.0f));
  EXPECT_NE(backend->status().message().find("unspecified"), std::string::npos);
}

TEST(StepGraphs, BucketsAndPadding) {
  using cuda::BucketOf;
  EXPECT_EQ(BucketOf(1), 1);
  EXPECT_EQ(BucketOf(3), 4);
  EXPECT_EQ(BucketOf(8), 8);
  EXPECT_EQ(BucketOf(9), 16);
  EXPECT_EQ(BucketOf(17), 24);
  EXPECT_EQ(BucketOf(65), 96);
  EXPECT_EQ(BucketOf(256), 256);
  EXPECT_EQ(BucketOf(257), 0);
  StepBatch batch, padded;
  batch.token_ids = batch.positions = batch.local_positions = batch.slots = {5};
  batch.logit_rows = {0};
  cuda::PadRows(batch, 4, &padded);
  EXPECT_EQ(padded.rows(), 4);
  EXPECT_EQ(padded.slots, (std::vector<int32_t>{5, kNoSlot, kNoSlot, kNoSlot}));
  EXPECT_EQ(padded.logit_rows, (std::vector<int32_t>{0, 1, 2, 3}));
  cuda::AttentionTables tables;
  tables.small.resize(5);
  tables.merges.resize(3);
  tables.partials = 33;
  const cuda::StepShape shape = cuda::RoundUp(8, &tables);
  EXPECT_EQ(shape, (cuda::StepShape{8, 8, 4, 64}));
  EXPECT_EQ(tables.small.back().tile, cuda::kNoTile);
  EXPECT_EQ(tables.merges.back(), cuda::kNoTile);
}

// As many graphs as are kept, and more: the one that was not used for longest goes.
TEST(StepGraphs, TheOldestGivesWay) {
  const auto stream = *cuda::CreateStream(false);
  {
    cuda::StepGraphs graphs(stream, true);
    int queued = 0;
    const auto run = [&](int32_t rows) {
      EXPECT_TRUE(graphs
                      .Run(
                          {{}, {rows, 1, 0, 1}}, [] { return cuda::StepGraphs::Stamp{}; },
                          [&] {
                            ++queued;
                            return Status::Ok();
                          })
                      .ok());
    };
    for (int round = 0; round < 3; ++round) run(0);
    EXPECT_EQ(queued, 2);
    for (int32_t rows = 1; rows <= int32_t(cuda::StepGraphs::kMost); ++rows) run(rows);
    queued = 0;
    run(int32_t(cuda::StepGraphs::kMost));
    EXPECT_EQ(queued, 1);  // recorded
    run(0);
    EXPECT_EQ(queued, 2);  // anew
    const auto before = emulation::CallsSoFar();
    run(int32_t(cuda::StepGraphs::kMost));
    EXPECT_EQ(Since(before).launches, 1u);
  }
  cuda::DestroyStream(stream);
}

}  // namespace
}  // namespace kvasir
