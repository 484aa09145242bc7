// Forward against the layer equations, on tiny models of every architecture and every backend.
#include "engine/model/forward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/core/reference_backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/engine/forward_oracle.h"
#include "tests/engine/sequence_runner.h"
#include "tests/engine/tiny_model.h"

namespace kvasir {
namespace {

using test::SequenceRunner;
using test::TinyModelOptions;

// The model must go before its backend: members die from the last to the first.
struct Loaded {
  std::string path;
  std::unique_ptr<Backend> backend;
  std::shared_ptr<const Model> model;
};

Loaded LoadOn(const TinyModelOptions& options, std::unique_ptr<Backend> backend) {
  Loaded loaded{test::WriteTinyModel(options), std::move(backend), nullptr};
  auto model = LoadGgufModel(loaded.path, *loaded.backend);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  if (model.ok()) loaded.model = *model;
  return loaded;
}

Loaded Load(const TinyModelOptions& options) { return LoadOn(options, CreateReferenceBackend()); }

std::vector<int32_t> SomeIds(int count, uint32_t seed = 1) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525 + 1013904223;
    ids.push_back(static_cast<int32_t>((seed >> 8) % test::kTinyVocabulary));
  }
  return ids;
}

// Largest difference, relative to the largest oracle logit of the row.
double RelativeError(const std::vector<float>& row, const std::vector<double>& oracle) {
  double error = 0, scale = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    error = std::max(error, std::abs(row[i] - oracle[i]));
    scale = std::max(scale, std::abs(oracle[i]));
  }
  return error / scale;
}

// fp32 rounding (u = 2^-24) of 3 layers with about 7 operations each, errors adding like a random
// walk over sums of at most 256 products: u * sqrt(21) * sqrt(256) = 4.4e-6; three deviations, for
// the worst of 300 logits.
constexpr double kTolerance = 3 * 4.4e-6;

class ForwardArchitectures : public ::testing::TestWithParam<Architecture> {
 protected:
  TinyModelOptions Options() const {
    TinyModelOptions options;
    options.architecture = GetParam();
    return options;
  }
};

std::string NameOf(const ::testing::TestParamInfo<Architecture>& info) {
  constexpr const char* kNames[] = {"llama", "qwen2", "qwen3", "gemma3"};
  return kNames[static_cast<size_t>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(All, ForwardArchitectures,
                         ::testing::Values(Architecture::kLlama, Architecture::kQwen2,
                                           Architecture::kQwen3, Architecture::kGemma3),
                         NameOf);

void ExpectLikeOracle(const Loaded& loaded, int tokens) {
  const std::vector<int32_t> ids = SomeIds(tokens);
  SequenceRunner runner(loaded.model, *loaded.backend, 1, tokens);
  const auto rows = runner.Step({{0, ids, true}});
  const auto oracle = test::ForwardOracle(loaded.path).Logits(ids);
  ASSERT_EQ(rows.size(), oracle.size());
  for (size_t t = 0; t < rows.size(); ++t) {
    EXPECT_LT(RelativeError(rows[t], oracle[t]), kTolerance) << "row " << t;
  }
}

// 70 tokens: gemma3's window of 24 is passed, four blocks are filled.
TEST_P(ForwardArchitectures, EqualsTheLayerEquations) { ExpectLikeOracle(Load(Options()), 70); }

TEST_P(ForwardArchitectures, UntiedQuantisedWeights) {
  TinyModelOptions options = Options();
  options.tied = false;
  options.weights = DType::kQ4_1;
  options.embedding = DType::kQ8_0;
  options.seed = 5;
  ExpectLikeOracle(Load(options), 20);
}

TEST(Forward, Llama3RopeFactors) {
  TinyModelOptions options;
  options.llama3_factors = true;
  ExpectLikeOracle(Load(options), 40);
}

TEST(Forward, KQuants) {
  for (const DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    TinyModelOptions options;
    options.weights = dtype;
    options.layers = 2;
    options.width = options.ffn_width = 256;
    options.heads = 16;
    options.kv_heads = 4;
    ExpectLikeOracle(Load(options), 10);
  }
}

// A model whose layers add nothing (all matrices of zeros): the logits are the normed embedding
// times the table. E = 32 with token 0 = (3, 4, 0...), token 1 = (0, 1, 0...): the mean square of
// token 0 is 25/32, so h = (3, 4) * sqrt(32) / 5 and its logits are 5 sqrt(32) and 0.8 sqrt(32).
TEST(Forward, ByHand) {
  TinyModelOptions options;
  options.width = 32;
  options.layers = 1;
  test::GgufBuilder file = test::TinyModelBuilder(options);
  const auto floats = [](std::vector<float> values, size_t count) {
    values.resize(count);
    return std::string(reinterpret_cast<const char*>(values.data()), count * sizeof(float));
  };
  std::vector<float> table(64);
  table[0] = 3, table[1] = 4, table[33] = 1;
  file.Tensor("token_embd.weight", DType::kF32, {32, 300}, floats(table, 32 * 300));
  const std::string ones = floats(std::vector<float>(32, 1.0F), 32);
  for (const char* name : {"output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"}) {
    file.Tensor(std::string(name) + ".weight", DType::kF32, {32}, ones);
  }
  const auto zeros = [&](const std::string& name, int64_t n, int64_t k) {
    file.Tensor("blk.0." + name + ".weight", DType::kF32, {k, n},
                floats({}, static_cast<size_t>(n * k)));
  };
  zeros("attn_q", 64, 32);
  zeros("attn_k", 32, 32);
  zeros("attn_v", 32, 32);
  zeros("attn_output", 32, 64);
  zeros("ffn_gate", 96, 32);
  zeros("ffn_up", 96, 32);
  zeros("ffn_down", 32, 96);
  auto backend = CreateReferenceBackend();
  const auto model = LoadGgufModel(test::WriteTempFile("hand.gguf", file.Bytes()), *backend);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  SequenceRunner runner(*model, *backend, 1, 16);
  const std::vector<float> logits = runner.Last({1, 0});
  EXPECT_NEAR(logits[0], 5.0 * std::sqrt(32.0), 1e-3);  // eps 1e-5 moves it by 2e-4
  EXPECT_NEAR(logits[1], 0.8 * std::sqrt(32.0), 1e-3);
  EXPECT_EQ(logits[2], 0.0F);
}

TEST_P(ForwardArchitectures, SlicesAndCompanyChangeNoBit) {
  const Loaded loaded = Load(Options());
  const std::vector<int32_t> ids = SomeIds(50), other = SomeIds(40, 9);
  SequenceRunner whole(loaded.model, *loaded.backend, 1, 64);
  const std::vector<float> expected = whole.Last(ids);

  SequenceRunner sliced(loaded.model, *loaded.backend, 2, 64);
  const auto part = [](const std::vector<int32_t>& v, int begin, int end) {
    return std::vector<int32_t>(v.begin() + begin, v.begin() + end);
  };
  sliced.Step({{1, part(other, 0, 7), false, true}});
  sliced.Step({{0, part(ids, 0, 20), false, true}, {1, part(other, 7, 8)}});
  sliced.Step({{1, part(other, 8, 30)}, {0, part(ids, 20, 49)}});
  const auto rows = sliced.Step({{1, part(other, 30, 31)}, {0, part(ids, 49, 50)}});
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[1], expected);
}

TEST_P(ForwardArchitectures, AskingForFewerLogitsChangesNoBit) {
  const Loaded loaded = Load(Options());
  const std::vector<int32_t> ids = SomeIds(33);
  SequenceRunner all(loaded.model, *loaded.backend, 1, 64);
  SequenceRunner last(loaded.model, *loaded.backend, 1, 64);
  EXPECT_EQ(all.Step({{0, ids, true}}).back(), last.Last(ids));
}

TEST_P(ForwardArchitectures, CapturesKeysBeforeRopeAndAfterTheirNorm) {
  const Loaded loaded = Load(Options());
  const ModelConfig& config = loaded.model->config;
  const std::vector<int32_t> ids = SomeIds(30);
  SequenceRunner runner(loaded.model, *loaded.backend, 1, 64);
  KvCapture capture = KvCapture::For(config.Layout(DType::kF32), 25);
  const auto part = [&](int begin, int end) {
    return std::vector<int32_t>(ids.begin() + begin, ids.begin() + end);
  };
  // Tokens 5 to 29, in two steps; the second asks for no logits.
  runner.Step({{0, part(0, 12)}}, {{&capture, 5, 12, 0}});
  runner.Step({{0, part(12, 30), false, true}}, {{&capture, 0, 18, 7}});

  const test::ForwardOracle oracle(loaded.path);
  for (int layer = 0; layer < config.layers; ++layer) {
    std::vector<std::vector<double>> k, v;
    oracle.KeyValue(ids, layer, &k, &v);
    for (size_t token = 0; token < 25; ++token) {
      for (size_t i = 0; i < k[0].size(); ++i) {
        const size_t at =
            static_cast<size_t>(layer) * capture.LayerStride() + token * k[0].size() + i;
        ASSERT_NEAR(capture.k[at], k[token + 5][i], 1e-4) << layer << " " << token;
        ASSERT_NEAR(capture.v[at], v[token + 5][i], 1e-4) << layer << " " << token;
      }
    }
  }
}

TEST(Forward, WithoutLogitsTheSameKvIsWritten) {
  const Loaded loaded = Load({});
  const std::vector<int32_t> ids = SomeIds(20);
  SequenceRunner with(loaded.model, *loaded.backend, 1, 32);
  SequenceRunner without(loaded.model, *loaded.backend, 1, 32);
  with.Step({{0, ids}});
  EXPECT_TRUE(without.Step({{0, ids, false, true}}).empty());
  for (int32_t layer = 0; layer < 3; ++layer) {
    std::vector<float> k[2], v[2];
    for (int i = 0; i < 2; ++i) {
      k[i].resize(20 * 32);
      v[i].resize(20 * 32);
      SequenceRunner& runner = i == 0 ? with : without;
      EXPECT_TRUE(
          runner.backend()
              .ReadKv(runner.pool(), layer, runner.BlocksOf(0), 20, k[i].data(), v[i].data())
              .ok());
    }
    EXPECT_EQ(k[0], k[1]);
    EXPECT_EQ(v[0], v[1]);
  }
}

TEST(Forward, TokensOutsideTheVocabularyAreRefused) {
  const Loaded loaded = Load({});
  SequenceRunner runner(loaded.model, *loaded.backend, 1, 32);
  for (const int32_t id : {-1, test::kTinyVocabulary, INT32_MAX}) {
    std::vector<float> logits;
    const Status status = Forward(*loaded.model, runner.pool(), runner.BatchOf({{0, {id}}}),
                                  runner.workspace(), {}, &logits);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(std::to_string(id)), std::string::npos);
  }
}

TEST(Forward, AnEmptyBatchIsNothing) {
  const Loaded loaded = Load({});
  SequenceRunner runner(loaded.model, *loaded.backend, 1, 16);
  EXPECT_TRUE(runner.Step({}).empty());
}

// Every instruction set of this machine, both at prefill and at decode.
TEST_P(ForwardArchitectures, CpuBackendsEqualTheLayerEquations) {
  for (const Isa isa : SupportedIsas()) {
    SCOPED_TRACE(IsaName(isa));
    CpuOptions cpu;
    cpu.threads = 2;
    cpu.isa = isa;
    auto backend = CreateCpuBackend(cpu);
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    TinyModelOptions options = Options();
    options.weights = DType::kQ4_1;
    options.embedding = DType::kQ8_0;
    const Loaded loaded = LoadOn(options, *std::move(backend));
    const std::vector<int32_t> ids = SomeIds(40);
    const auto oracle = test::ForwardOracle(loaded.path).Logits(ids);
    SequenceRunner runner(loaded.model, *loaded.backend, 1, 64);
    const auto prefill = runner.Step({{0, {ids.begin(), ids.begin() + 36}, true}});
    for (size_t t = 0; t < prefill.size(); ++t) {
      EXPECT_LT(RelativeError(prefill[t], oracle[t]), kTolerance) << "row " << t;
    }
    for (size_t t = 36; t < ids.size(); ++t) {
      EXPECT_LT(RelativeError(runner.Last({ids[t]}), oracle[t]), kTolerance) << "row " << t;
    }
  }
}

}  // namespace
}  // namespace kvasir
