// The exactness gates: what reuse of chunk KV at any position may and may not change. On tiny
// random models of every architecture, with an fp32 pool, on the reference, every CPU instruction
// set and the emulated card; and on SmolLM2 with the best CPU backend (gates_model_test.cc has real
// text).
//
// Tolerances. All arithmetic is fp32 (unit u = 6e-8). The ways that a gate compares do the same
// sums with keys rotated in another frame, so a score differs by a few u |q||k| and a logit by a
// few hundred u times its size after all layers: with logits below 10 that is below 2e-4 (the
// design asks for 1e-3). SmolLM2 has ten times the layers and three times the logits: 1e-3, the
// design's bound. Gates on equal frames ask for equal bits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/model/forward.h"
#include "engine/sequence.h"
#include "tests/engine/engine_harness.h"
#include "tests/engine/hand_run.h"
#include "tests/engine/naive_forward.h"

namespace kvasir {
namespace {

using test::AllRows;
using test::Answer;
using test::Ask;
using test::CaptureChunk;
using test::ExactOptions;
using test::Fresh;
using test::HandRun;
using test::Ids;
using test::Join;
using test::LoadChunk;
using test::MaxDifference;
using test::RandomTokens;
using test::Reused;
using test::RunAll;
using test::RunOne;
using test::SameBits;

constexpr float kTinyTolerance = 2e-4f, kRealTolerance = 1e-3f;
constexpr float kShiftTolerance = 1e-4f;
constexpr double kUnit = 6e-8;
constexpr char kRealModel[] = "SmolLM2-135M-Instruct.Q4_1.gguf";

struct ModelChoice {
  std::string name;
  test::TinyModelOptions options;
  bool real = false;  // kRealModel instead
};

test::Loaded Load(const ModelChoice& model, const test::BackendChoice& backend, int threads) {
  if (!model.real) return test::LoadTiny(backend, model.options, threads);
  test::Loaded loaded{backend.create(threads), nullptr};
  auto read = LoadGgufModel(test::ModelPath(kRealModel), *loaded.backend);
  KVASIR_CHECK(read.ok());
  loaded.model = std::move(read).value();
  return loaded;
}

std::vector<ModelChoice> TinyModels() {
  std::vector<ModelChoice> models = {{"Llama", {}}, {"Qwen2", {}}, {"Qwen3", {}}, {"Gemma3", {}}};
  models[0].options.llama3_factors = true;
  models[1].options.architecture = Architecture::kQwen2;
  models[2].options.architecture = Architecture::kQwen3;
  models[3].options.architecture = Architecture::kGemma3;
  for (ModelChoice& model : models) model.options.tied = false;
#if defined(KVASIR_CUDA_EMULATION)  // takes seconds a gate: those that differ most, and smaller
  models = {models[0], models[3]};
  for (ModelChoice& model : models) model.options.layers = 2;
#endif
  return models;
}

using GateParam = std::tuple<ModelChoice, test::BackendChoice>;

class Gates : public testing::TestWithParam<GateParam> {
 protected:
  void SetUp() override {
    if (model().real && !std::filesystem::exists(test::ModelPath(kRealModel))) {
      GTEST_SKIP() << "skipped: model " << kRealModel << " missing";
    }
  }
  const ModelChoice& model() const { return std::get<0>(GetParam()); }
  const test::BackendChoice& backend() const { return std::get<1>(GetParam()); }
  float tolerance() const { return model().real ? kRealTolerance : kTinyTolerance; }
  // A block of SmolLM2 takes 720 KiB in fp32. All are poisoned, which takes an emulated card long.
  EngineOptions Options() const {
    const bool emulated = backend().name == "CudaEmulated";
    return ExactOptions(size_t{model().real ? 64u : emulated ? 1u : 8u} << 20);
  }
  // Models are loaded once for all gates of a process, and stay: at its exit a backend may have
  // lost what it stands on.
  const test::Loaded& loaded() {
    static auto& all = *new std::map<std::string, test::Loaded>;
    const auto& [model, backend] = GetParam();
    const std::string key = model.name + backend.name;
    if (!all.contains(key)) all[key] = Load(model, backend, 1);
    return all[key];
  }
  std::unique_ptr<Engine> MakeEngine() { return test::MakeEngine(loaded(), Options()); }
  std::vector<float> FullLogits(Engine& engine, const Ids& prompt) {
    return Logits(engine, {Fresh(prompt)});
  }
  std::vector<float> Logits(Engine& engine, std::vector<SegmentPlan> segments) {
    const Answer answer = RunOne(engine, Ask(std::move(segments)));
    EXPECT_TRUE(answer.end.status.ok()) << answer.end.status.ToString();
    return answer.logits.empty() ? std::vector<float>() : answer.logits.front();
  }
  void Report(const std::string& what, double value) {
    RecordProperty(what, std::to_string(value));
    if (const char* print = std::getenv("KVASIR_GATES_PRINT"); print != nullptr) {
      std::cout << "  " << what << " " << value << "\n";
    }
  }

  const Ids anchor_ = RandomTokens(11, 1);
  const Ids first_ = RandomTokens(37, 2), second_ = RandomTokens(29, 3);
  const Ids question_ = RandomTokens(9, 4);
};

std::string NameOf(const testing::TestParamInfo<GateParam>& info) {
  return std::get<0>(info.param).name + std::get<1>(info.param).name;
}
INSTANTIATE_TEST_SUITE_P(All, Gates,
                         testing::Combine(testing::ValuesIn(TinyModels()),
                                          testing::ValuesIn(test::AllBackends())),
                         NameOf);
#if !defined(KVASIR_CUDA_EMULATION)  // takes hours there
INSTANTIATE_TEST_SUITE_P(Real, Gates,
                         testing::Values(GateParam{{"SmolLM2", {}, true}, test::BestCpu()}),
                         NameOf);
#endif

// G0: a full prefill equals the independent forward pass. The other gates build on it.
TEST_P(Gates, G0FullPrefillEqualsNaiveForward) {
  auto engine = MakeEngine();
  const Ids prompt = Join({anchor_, first_, second_, question_});
  const auto naive =
      test::NaiveForward(*loaded().model, *loaded().backend, prompt, test::CausalSight);
  const float difference = MaxDifference(FullLogits(*engine, prompt), naive);
  Report("G0", double{difference});
  EXPECT_LE(difference, tolerance());
}

// G1: turning the query by (m - b) against local keys, turning keys on by b, and turning both to
// absolute positions agree, up to the largest position.
// Each fp32 rotation of a vector of norm N errs by about 3 u N, three are compared: 16 u |q||k|.
TEST_P(Gates, G1RotationsAgreeAtAllPositions) {
  const ModelConfig& config = loaded().model->config;
  const auto dims = static_cast<size_t>(config.head_dim);
  double worst = 0;
  for (const RopeTable& rope : config.ropes) {
    std::vector<float> q(dims), k(dims);
    double q_norm = 0, k_norm = 0;
    for (size_t d = 0; d < dims; ++d) {
      q[d] = std::sin(static_cast<float>(3 * d + 1));
      k[d] = std::cos(static_cast<float>(5 * d + 2));
      q_norm += double{q[d]} * q[d];
      k_norm += double{k[d]} * k[d];
    }
    const auto dot = [&](int64_t turn_q, std::vector<int64_t> turns_k) {
      std::vector<float> a = q, b = k;
      rope.Rotate(turn_q, a.data());
      for (const int64_t turn : turns_k) rope.Rotate(turn, b.data());
      double sum = 0;
      for (size_t d = 0; d < dims; ++d) sum += double{a[d]} * b[d];
      return sum;
    };
    const double bound = 16 * kUnit * std::sqrt(q_norm * k_norm);
    for (const int64_t m : {1, 17, 300, 1000, config.context - 1}) {
      for (const int64_t base : {int64_t{0}, int64_t{1}, m / 3, m - 1}) {
        const int64_t local = (m - base) / 2;
        const double direct = dot(m, {base + local});
        const double offset = dot(m - base, {local});
        const double delta = dot(m, {local, base});
        worst = std::max({worst, std::fabs(direct - offset), std::fabs(direct - delta)});
        ASSERT_NEAR(direct, offset, bound) << m << " " << base;
        ASSERT_NEAR(direct, delta, bound) << m << " " << base;
      }
    }
  }
  Report("G1", worst);
}

// G2: at layer 0 nothing depends on context: V of a reused token is bit-equal to full prefill's,
// and K, turned from its local to its absolute position, equal within rounding (two fp32 rotations
// of keys of norm N: 6 u N).
TEST_P(Gates, G2LayerZeroIsThatOfFullPrefill) {
  HandRun run(loaded(), 40);
  const KvCapture chunk = run.Compute({Fresh(first_)});  // bare
  const auto reused = run.Load(chunk);
  const Ids prompt = Join({anchor_, second_, first_});
  run.Compute({Fresh(prompt)});
  const auto tokens = static_cast<int32_t>(prompt.size());
  const auto base = static_cast<size_t>(tokens) - first_.size();
  const ModelConfig& config = run.model.config;
  const auto dims = static_cast<size_t>(config.head_dim);
  const size_t row = static_cast<size_t>(config.kv_heads) * dims;
  std::vector<float> k(row * prompt.size()), v(k.size());
  EXPECT_TRUE(run.backend.ReadKv(*run.kv, 0, run.own, tokens, k.data(), v.data()).ok());
  std::vector<float> chunk_k(row * first_.size()), chunk_v(chunk_k.size());
  EXPECT_TRUE(
      run.backend
          .ReadKv(*run.kv, 0, reused->ids(), reused->tokens(), chunk_k.data(), chunk_v.data())
          .ok());
  EXPECT_TRUE(SameBits({v.begin() + std::ptrdiff_t(base * row), v.end()}, chunk_v));
  const RopeTable& rope = config.ropes[size_t(config.layer_rope[0])];
  for (size_t at = 0; at < chunk_k.size(); at += dims) {
    rope.Rotate(static_cast<int64_t>(base), chunk_k.data() + at);
  }
  const float difference =
      MaxDifference({k.begin() + std::ptrdiff_t(base * row), k.end()}, chunk_k);
  double norm = 0;
  for (size_t at = 0; at < chunk_k.size(); at += dims) {
    const auto key = chunk_k.begin() + std::ptrdiff_t(at);
    norm = std::max(norm, std::sqrt(std::inner_product(key, key + std::ptrdiff_t(dims), key, 0.0)));
  }
  Report("G2 keys", double{difference});
  EXPECT_LE(difference, 6 * kUnit * norm);
}

// G3: computing every row of every chunk again equals full prefill.
TEST_P(Gates, G3RecomputingAllEqualsFullPrefill) {
  auto engine = MakeEngine();
  const auto a = LoadChunk(*engine, *CaptureChunk(*engine, anchor_, first_));
  const auto b = LoadChunk(*engine, *CaptureChunk(*engine, anchor_, second_));
  const auto full = FullLogits(*engine, Join({anchor_, second_, first_, question_}));
  const auto repaired =
      Logits(*engine, {Fresh(anchor_), Reused(second_, b, AllRows(b->tokens())),
                       Reused(first_, a, AllRows(a->tokens())), Fresh(question_)});
  const auto stale =
      Logits(*engine, {Fresh(anchor_), Reused(second_, b), Reused(first_, a), Fresh(question_)});
  const float difference = MaxDifference(full, repaired);
  Report("G3", double{difference});
  Report("G3 without repair", double{MaxDifference(full, stale)});
  EXPECT_LE(difference, tolerance());
  EXPECT_GT(MaxDifference(full, stale), 1000 * kTinyTolerance) << "the gate would see nothing";
}

// G4: a chunk behind the prefix that it was encoded behind, at the same place, equals full prefill.
TEST_P(Gates, G4SamePrefixAtTheSamePlaceEqualsFullPrefill) {
  auto engine = MakeEngine();
  const auto a = LoadChunk(*engine, *CaptureChunk(*engine, anchor_, first_));
  const auto b = LoadChunk(*engine, *CaptureChunk(*engine, Join({anchor_, first_}), second_));
  const auto full = FullLogits(*engine, Join({anchor_, first_, second_, question_}));
  const auto reused =
      Logits(*engine, {Fresh(anchor_), Reused(first_, a), Reused(second_, b), Fresh(question_)});
  const float difference = MaxDifference(full, reused);
  Report("G4", double{difference});
  EXPECT_LE(difference, tolerance());
}

// G5: with no row computed again, fused KV is exactly a forward pass in which a chunk's rows see
// the anchor (at the distance of ingestion) and their own chunk, and the question sees all. The
// naive pass knows no pool, segment or frame: it states the mask and every distance pair by pair
// and keeps no KV, so nothing that fusion does takes part in it but the linear algebra.
TEST_P(Gates, G5NoRecomputeEqualsBlockDiagonalForward) {
  for (const bool anchored : {false, true}) {
    auto engine = MakeEngine();
    const Ids behind = anchored ? anchor_ : Ids{};
    const auto a = LoadChunk(*engine, *CaptureChunk(*engine, behind, first_));
    const auto b = LoadChunk(*engine, *CaptureChunk(*engine, behind, second_));
    const auto fused =
        Logits(*engine, {Fresh(anchor_), Reused(second_, b), Reused(first_, a), Fresh(question_)});
    const Ids prompt = Join({anchor_, second_, first_, question_});

    const auto begin_second = static_cast<int32_t>(anchor_.size());
    const int32_t begin_first = begin_second + static_cast<int32_t>(second_.size());
    const int32_t begin_question = begin_first + static_cast<int32_t>(first_.size());
    const auto sight = [&](int32_t row, int32_t key) -> test::Sight {
      if (row < begin_second || row >= begin_question) return test::CausalSight(row, key);
      const int32_t begin = row < begin_first ? begin_second : begin_first;
      if (key >= begin) return test::CausalSight(row, key);
      const int64_t ingested_at = begin_second + (row - begin);
      return {anchored && key < begin_second, ingested_at - key};
    };
    const auto naive = test::NaiveForward(*loaded().model, *loaded().backend, prompt, sight);
    const float difference = MaxDifference(fused, naive);
    const float of_causal = MaxDifference(fused, FullLogits(*engine, prompt));
    Report(anchored ? "G5 anchored" : "G5 bare", double{difference});
    Report("G5 to the causal mask", double{of_causal});
    EXPECT_LE(difference, tolerance());
    EXPECT_GT(of_causal, 1000 * kTinyTolerance) << "the gate would see nothing";
  }
}

// G5 for parallel: chunks side by side all begin behind the anchor, the question behind the
// longest.
TEST_P(Gates, G5ChunksSideBySideEqualANaiveForward) {
  auto engine = MakeEngine();
  const auto a = LoadChunk(*engine, *CaptureChunk(*engine, anchor_, first_));
  const auto b = LoadChunk(*engine, *CaptureChunk(*engine, anchor_, second_));
  SegmentPlan first = Reused(first_, a), second = Reused(second_, b);
  first.side_by_side = second.side_by_side = true;
  const auto parallel = Logits(*engine, {Fresh(anchor_), second, first, Fresh(question_)});
  const Ids prompt = Join({anchor_, second_, first_, question_});

  const auto begin_second = static_cast<int32_t>(anchor_.size());
  const int32_t begin_first = begin_second + static_cast<int32_t>(second_.size());
  const int32_t begin_question = begin_first + static_cast<int32_t>(first_.size());
  const auto longest = static_cast<int32_t>(std::max(first_.size(), second_.size()));
  const auto position = [&](int32_t row) {
    if (row < begin_first) return row;
    return row < begin_question ? row - begin_first + begin_second
                                : row - begin_question + begin_second + longest;
  };
  const auto sight = [&](int32_t row, int32_t key) -> test::Sight {
    const bool other_chunk =
        row >= begin_first && row < begin_question && key >= begin_second && key < begin_first;
    return {key <= row && !other_chunk, position(row) - position(key)};
  };
  const auto naive = test::NaiveForward(*loaded().model, *loaded().backend, prompt, sight);
  const float difference = MaxDifference(parallel, naive);
  const float of_concat = MaxDifference(
      parallel,
      Logits(*engine, {Fresh(anchor_), Reused(second_, b), Reused(first_, a), Fresh(question_)}));
  Report("G5 side by side", double{difference});
  EXPECT_LE(difference, tolerance());
  EXPECT_GT(of_concat, 1000 * kTinyTolerance) << "the gate would see nothing";
}

// A chunk at any offset: logits depend on distances alone, up to the model's last position.
TEST_P(Gates, ChunkAtAnyOffsetGivesTheSameLogits) {
  HandRun run(loaded(), 16);
  const auto chunk = run.Load(run.Compute({Fresh(first_)}));
  Sequence sequence(1, Ask({Reused(first_, chunk), Fresh(question_)}), 1 << 20);
  std::vector<BlockCopy> copies;
  sequence.Place(*run.pool.Allocate(sequence.BlocksNeeded()), &copies);
  StepBatch batch;
  sequence.AppendRows(sequence.rows_left(), &batch);
  const auto logits_at = [&](int32_t offset) {
    StepBatch moved = batch;
    for (int32_t& position : moved.positions) position += offset;
    for (SegmentRef& segment : moved.segments) segment.base += offset;
    std::vector<float> logits;
    EXPECT_TRUE(Forward(run.model, *run.kv, moved, run.workspace, {}, &logits).ok());
    return logits;
  };
  const auto expected = logits_at(0);
  const int32_t last = run.model.config.context - 1 - batch.positions.back();
  float worst = 0;
  for (const int32_t offset : {1, 7, 16, 333, 1024, last}) {
    worst = std::max(worst, MaxDifference(expected, logits_at(offset)));
  }
  Report("offsets", double{worst});
  EXPECT_LE(worst, kShiftTolerance);
}

// Chunks behind an anchor, some of their rows computed again.
struct RepairedPrompt {
  Ids anchor, first, second, question;

  // K and V of the rows computed: the anchor's 11 (0 to 10), 4 of each chunk (11 to 14 and 15 to
  // 18), the question's 9 (19 to 27).
  KvCapture Compute(HandRun& run) const {
    const auto reuse = [&run](const Ids& chunk) {
      const KvCapture capture = run.Compute({Fresh(chunk)});
      run.pool.Unref(run.own);
      return run.Load(capture);
    };
    const auto a = reuse(first), b = reuse(second);
    KvCapture capture = run.Compute({Fresh(anchor), Reused(first, a, {0, 1, 20, 36}),
                                     Reused(second, b, {3, 16, 17, 28}), Fresh(question)});
    run.pool.Unref(run.own);
    return capture;
  }
};

// One layer of a plane of `from`, rows [begin, end).
std::vector<float> RowsOf(const KvCapture& from, const std::vector<float>& plane, int32_t layer,
                          int32_t begin, int32_t end) {
  const auto row = std::ptrdiff_t{from.kv_heads} * from.head_dim;
  const auto at = plane.begin() + std::ptrdiff_t(size_t(layer) * from.LayerStride());
  return {at + begin * row, at + end * row};
}

// G6: a later token never reaches an earlier row, whether it is computed in the same step or its
// KV is reused, in the row's own chunk or a later segment: K and V of every row before it keep
// their bits. The mirror: the first computed row that sees the token changes (from layer 1 on:
// layer 0 is the row's own).
TEST_P(Gates, G6LaterTokensDoNotLeakIntoEarlierRows) {
  HandRun run(loaded(), 80);
  const RepairedPrompt prompt{anchor_, first_, second_, question_};
  const KvCapture before = prompt.Compute(run);
  ASSERT_EQ(before.tokens, 28);
  struct Change {
    std::string what;
    Ids RepairedPrompt::*part;
    size_t token;
    int32_t row;  // the first that may change
  };
  for (const Change& change : {Change{"anchor", &RepairedPrompt::anchor, 2, 2},
                               {"row 20 of a chunk", &RepairedPrompt::first, 20, 13},
                               {"reused in the first", &RepairedPrompt::first, 25, 14},
                               {"reused in the last", &RepairedPrompt::second, 20, 18},
                               {"question", &RepairedPrompt::question, 5, 24}}) {
    SCOPED_TRACE(change.what);
    RepairedPrompt changed = prompt;
    int32_t& token = (changed.*change.part)[change.token];
    token = token == 50 ? 51 : 50;
    const KvCapture after = changed.Compute(run);
    for (int32_t layer = 0; layer < before.layers; ++layer) {
      EXPECT_TRUE(SameBits(RowsOf(before, before.k, layer, 0, change.row),
                           RowsOf(after, after.k, layer, 0, change.row)));
      EXPECT_TRUE(SameBits(RowsOf(before, before.v, layer, 0, change.row),
                           RowsOf(after, after.v, layer, 0, change.row)));
      if (layer == 0) continue;
      EXPECT_FALSE(SameBits(RowsOf(before, before.k, layer, change.row, change.row + 1),
                            RowsOf(after, after.k, layer, change.row, change.row + 1)));
    }
  }
}

// Requests of every kind, for G7 and G8.
std::vector<Request> MixedRequests(Engine& engine, const Ids& anchor,
                                   const std::vector<Ids>& chunks, int32_t max_tokens) {
  std::vector<std::shared_ptr<const KvBlocks>> blocks;
  for (const Ids& chunk : chunks) {
    blocks.push_back(LoadChunk(engine, *CaptureChunk(engine, anchor, chunk)));
  }
  std::vector<Request> requests;
  requests.push_back(Ask({Fresh(Join({anchor, chunks[0], {30, 31}}))}, max_tokens));
  requests.push_back(
      Ask({Fresh(anchor), Reused(chunks[0], blocks[0]), Fresh({40, 41, 42})}, max_tokens));
  requests.push_back(Ask({Fresh(anchor), Reused(chunks[1], blocks[1], {0, 1, 2, 3}),
                          Reused(chunks[0], blocks[0], {0, 1, 2, 3}), Fresh({43})},
                         max_tokens));
  requests.push_back(Ask({Fresh({44})}, max_tokens + 3));
  requests.push_back(Ask({Reused(chunks[1], blocks[1]), Reused(chunks[1], blocks[1]),
                          Reused(chunks[0], blocks[0], AllRows(blocks[0]->tokens()))},
                         max_tokens));
  return requests;
}

void ExpectSameAnswers(const std::vector<Answer>& a, const std::vector<Answer>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_TRUE(a[i].end.status.ok()) << a[i].end.status.ToString();
    ASSERT_TRUE(b[i].end.status.ok()) << b[i].end.status.ToString();
    EXPECT_EQ(a[i].tokens, b[i].tokens) << "request " << i;
    ASSERT_EQ(a[i].logits.size(), b[i].logits.size());
    for (size_t step = 0; step < a[i].logits.size(); ++step) {
      ASSERT_TRUE(SameBits(a[i].logits[step], b[i].logits[step]))
          << "request " << i << " step " << step << ": difference "
          << MaxDifference(a[i].logits[step], b[i].logits[step]) << ", KL "
          << test::KlDivergence(a[i].logits[step], b[i].logits[step]);
    }
  }
}

// G7: every request of a mixed batch answers as it does alone, bit for bit.
TEST_P(Gates, G7AMixedBatchEqualsEachAlone) {
  EngineOptions options = Options();
  options.step_rows = 50;
  auto engine = test::MakeEngine(loaded(), options);
  const auto requests = MixedRequests(*engine, anchor_, {first_, second_}, 6);
  std::vector<Answer> alone;
  for (const Request& request : requests) alone.push_back(RunOne(*engine, request));
  ExpectSameAnswers(alone, RunAll(*engine, requests));
}

// G8: the noise floor. Slices and thread counts change no bit, so it is zero.
TEST_P(Gates, G8SlicesAndThreadsChangeNoBit) {
  const auto answers = [&](const test::Loaded& with, int32_t step_rows) {
    EngineOptions options = Options();
    options.step_rows = step_rows;
    auto engine = test::MakeEngine(with, options);
    return RunAll(*engine, MixedRequests(*engine, anchor_, {first_, second_}, 3));
  };
  const auto& [model, backend] = GetParam();
  const bool emulated = backend.name == "CudaEmulated";  // takes a second a step of many
  const auto expected = answers(loaded(), 512);
  for (const int32_t step_rows : emulated ? std::vector{7} : std::vector{61, 7, 1}) {
    SCOPED_TRACE("step_rows " + std::to_string(step_rows));
    ExpectSameAnswers(expected, answers(loaded(), step_rows));
  }
  if (backend.name == "Reference" || emulated) return;  // have no threads
  for (const int threads : {2, 3}) {
    SCOPED_TRACE("threads " + std::to_string(threads));
    const test::Loaded threaded = Load(model, backend, threads);
    ExpectSameAnswers(expected, answers(threaded, 512));
  }
}

}  // namespace
}  // namespace kvasir
