// LoadGgufModel: what is read out of a model file, and what is refused.
#include "engine/model/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <random>
#include <set>

#include "engine/model/digest.h"
#include "engine/model/model_config_gguf.h"
#include "kernels/core/reference_backend.h"
#include "tests/engine/tiny_model.h"

namespace kvasir {
namespace {

using test::GgufBuilder;
using test::TinyModelOptions;

Result<std::shared_ptr<const Model>> LoadBytes(const std::string& bytes, Backend& backend) {
  return LoadGgufModel(test::WriteTempFile("model.gguf", bytes), backend);
}

class ModelTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Model> Load(const TinyModelOptions& options) {
    auto model = LoadBytes(test::TinyModelBytes(options), *backend_);
    EXPECT_TRUE(model.ok()) << model.status().ToString();
    return model.ok() ? *model : nullptr;
  }
  Status LoadStatus(const std::string& bytes) { return LoadBytes(bytes, *backend_).status(); }

  // A tiny model's file with one metadata pair as `write` writes it.
  Status LoadWith(const TinyModelOptions& options, const std::string& key,
                  const std::function<void(GgufBuilder&, const std::string& key)>& write) {
    GgufBuilder builder = test::TinyModelBuilder(options);
    write(builder, key);
    test::AddTinyTensors(options, builder);
    return LoadStatus(builder.Bytes());
  }

  void ExpectRefused(const Status& status, StatusCode code, std::string_view words) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_NE(status.message().find(words), std::string::npos) << status.ToString();
  }

  std::unique_ptr<Backend> backend_ = CreateReferenceBackend();
};

TinyModelOptions Of(Architecture architecture) {
  TinyModelOptions options;
  options.architecture = architecture;
  return options;
}

TEST_F(ModelTest, LlamaGeometry) {
  const auto model = Load(Of(Architecture::kLlama));
  ASSERT_NE(model, nullptr);
  const ModelConfig& c = model->config;
  EXPECT_EQ(c.name, "tiny llama");
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.width, 64);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.ffn_width, 96);
  EXPECT_EQ(c.vocab, test::kTinyVocabulary);
  EXPECT_EQ(c.attention_scale, 0.25F);
  EXPECT_EQ(c.activation, ActivationKind::kSilu);
  EXPECT_FALSE(c.qk_norm);
  ASSERT_EQ(c.ropes.size(), 1U);
  EXPECT_EQ(c.ropes[0].pairing, RopePairing::kInterleaved);
  EXPECT_DOUBLE_EQ(c.ropes[0].inv_freq[4], std::pow(10000.0, -8.0 / 16));
  EXPECT_EQ(c.layer_window, (std::vector<int32_t>{0, 0, 0}));
  EXPECT_TRUE(c.reuse.movable);
  EXPECT_EQ(model->output, nullptr);
  EXPECT_EQ(&model->OutputHead(), model->embedding.get());
  EXPECT_GE(model->WeightBytes(), 4U * (300 * 64 + 3 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3)));
}

TEST_F(ModelTest, EachArchitectureHasItsOwnParts) {
  const auto qwen2 = Load(Of(Architecture::kQwen2));
  EXPECT_EQ(qwen2->config.ropes[0].pairing, RopePairing::kHalfSplit);
  EXPECT_NE(qwen2->layers[0].q_bias, nullptr);
  EXPECT_EQ(qwen2->layers[0].q_norm, nullptr);
  const auto qwen3 = Load(Of(Architecture::kQwen3));
  EXPECT_TRUE(qwen3->config.qk_norm);
  EXPECT_NE(qwen3->layers[2].k_norm, nullptr);
  EXPECT_EQ(qwen3->layers[0].q_bias, nullptr);
  const auto gemma = Load(Of(Architecture::kGemma3));
  EXPECT_TRUE(gemma->config.post_norms);
  EXPECT_EQ(gemma->config.embed_scale, 8.0F);
  EXPECT_EQ(gemma->config.activation, ActivationKind::kGeluTanh);
  EXPECT_EQ(gemma->config.layer_window, (std::vector<int32_t>{24, 0, 24}));
  EXPECT_EQ(gemma->config.layer_rope, (std::vector<int32_t>{1, 0, 1}));
}

TEST_F(ModelTest, GemmaPatternIsFiveLocalToOneGlobalUnlessTheFileSaysOtherwise) {
  TinyModelOptions options = Of(Architecture::kGemma3);
  options.layers = 7;
  options.theta = 1e6F;
  options.window_pattern = 0;  // not written
  const auto model = Load(options);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->config.layer_window, (std::vector<int32_t>{24, 24, 24, 24, 24, 0, 24}));
  const auto& ropes = model->config.ropes;
  EXPECT_DOUBLE_EQ(ropes[0].inv_freq[4], std::pow(1e6, -0.5));
  EXPECT_DOUBLE_EQ(ropes[1].inv_freq[4], 0.01);
}

TEST_F(ModelTest, Llama3FactorsDivideFrequencies) {
  TinyModelOptions options;
  options.llama3_factors = true;
  const auto model = Load(options);
  ASSERT_NE(model, nullptr);
  EXPECT_DOUBLE_EQ(model->config.ropes[0].inv_freq[1], std::pow(10000.0, -2.0 / 16));
  EXPECT_DOUBLE_EQ(model->config.ropes[0].inv_freq[5], std::pow(10000.0, -10.0 / 16) / 8);
}

GgufBuilder WithScaling(const std::string& type, float factor) {
  GgufBuilder builder = test::TinyModelBuilder({});
  builder.String("llama.rope.scaling.type", type);
  builder.Float("llama.rope.scaling.factor", factor);
  builder.Uint32("llama.rope.scaling.original_context_length", 64);
  return builder;
}

TEST_F(ModelTest, LinearScalingDividesAllFrequencies) {
  GgufBuilder builder = WithScaling("linear", 4.0F);
  test::AddTinyTensors({}, builder);
  const auto model = LoadBytes(builder.Bytes(), *backend_);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_DOUBLE_EQ((*model)->config.ropes[0].inv_freq[2], std::pow(10000.0, -4.0 / 16) / 4);
}

// By hand for D = 16, theta = 10^4, 64 trained tokens: the pair that turns b times is
// 16 ln(64 / (2 pi b)) / (2 ln 10^4): -0.99 for b = 32, clamped to 0, and 2.016 -> 3 for b = 1.
// So pair 0 is kept, pairs from 3 on are divided by 4 and pair 1 lies a third of the way.
TEST_F(ModelTest, YarnKeepsFastFrequenciesAndStretchesSlowOnes) {
  GgufBuilder builder = WithScaling("yarn", 4.0F);
  test::AddTinyTensors({}, builder);
  const auto model = LoadBytes(builder.Bytes(), *backend_);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const RopeTable& rope = (*model)->config.ropes[0];
  EXPECT_DOUBLE_EQ(rope.inv_freq[0], 1.0);
  EXPECT_NEAR(rope.inv_freq[1], std::pow(10000.0, -2.0 / 16) * (2.0 / 3 + 1.0 / 12), 1e-15);
  EXPECT_NEAR(rope.inv_freq[3], std::pow(10000.0, -6.0 / 16) / 4, 1e-15);
  EXPECT_FLOAT_EQ(rope.magnitude, 1.0F + 0.1F * std::log(4.0F));
}

TEST_F(ModelTest, ScalingThatFollowsThePromptIsRefusedByName) {
  for (const char* type : {"longrope", "dynamic", "su"}) {
    GgufBuilder builder = WithScaling(type, 4.0F);
    test::AddTinyTensors({}, builder);
    ExpectRefused(LoadStatus(builder.Bytes()), StatusCode::kUnimplemented, type);
  }
}

TEST_F(ModelTest, Vocabulary) {
  const auto model = Load({});
  const VocabularyData& v = model->vocabulary;
  EXPECT_EQ(v.model, "gpt2");
  EXPECT_EQ(v.pre, "gpt-2");
  EXPECT_EQ(v.tokens.size(), 300U);
  EXPECT_EQ(v.tokens[test::kTinyFirstByte + 'A'], "A");
  EXPECT_EQ(v.tokens[test::kTinyFirstByte + ' '], "\u0120");
  EXPECT_EQ(v.merges[0], "\u0120 e");
  EXPECT_EQ(v.bos, 1);
  EXPECT_EQ(v.eos, 2);
  EXPECT_EQ(v.unknown, -1);
  EXPECT_EQ(v.end_of_generation, (std::vector<int32_t>{0, 2}));
  EXPECT_FALSE(v.add_bos);
  EXPECT_FALSE(v.add_space_prefix);
  EXPECT_NE(v.chat_template.find("<|im_start|>"), std::string::npos);
}

TEST_F(ModelTest, DigestFollowsEveryByte) {
  const std::string bytes = test::TinyModelBytes({});
  const std::string path = test::WriteTempFile("swapped.gguf", bytes);
  const std::string first = (*LoadGgufModel(path, *backend_))->digest;
  EXPECT_EQ(first.size(), 32U);
  EXPECT_EQ((*LoadBytes(bytes, *backend_))->digest, first);
  TinyModelOptions other;
  other.seed = 2;  // same size, same metadata, other weights
  std::ofstream(path, std::ios::binary) << test::TinyModelBytes(other);
  EXPECT_NE((*LoadGgufModel(path, *backend_))->digest, first);
  std::string one_bit = bytes;
  one_bit[bytes.size() - 1000] = static_cast<char>(one_bit[bytes.size() - 1000] ^ 1);
  EXPECT_NE((*LoadBytes(one_bit, *backend_))->digest, first);
}

TEST(Digest, EveryBitAndTheLengthCount) {
  std::vector<std::byte> bytes(200);
  std::set<std::string> seen = {DigestOf(bytes).Hex(), DigestOf(bytes, 1).Hex()};
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
    seen.insert(DigestOf(bytes).Hex());
    bytes[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  for (size_t length = 0; length < bytes.size(); ++length) {
    seen.insert(DigestOf(std::span(bytes).first(length)).Hex());
  }
  EXPECT_EQ(seen.size(), 2 + 200 * 8 + 200U);
}

TEST_F(ModelTest, UnknownArchitecture) {
  GgufBuilder builder;
  builder.String("general.architecture", "mamba");
  ExpectRefused(LoadStatus(builder.Bytes()), StatusCode::kUnimplemented,
                "architecture \"mamba\"; supported are llama, qwen2, qwen3, gemma3");
  GgufBuilder number;
  number.Uint32("general.architecture", 1);
  ExpectRefused(LoadStatus(number.Bytes()), StatusCode::kInvalidArgument, "expected a string");
  ExpectRefused(LoadStatus(GgufBuilder().Bytes()), StatusCode::kNotFound, "general.architecture");
}

TEST_F(ModelTest, NumericsThatAreNotSupportedAreNamed) {
  for (const char* key : {"llama.expert_count", "llama.rope.dimension_sections",
                          "llama.final_logit_softcapping", "llama.logit_scale"}) {
    GgufBuilder builder = test::TinyModelBuilder({});
    builder.Uint32(key, 8);
    test::AddTinyTensors({}, builder);
    ExpectRefused(LoadStatus(builder.Bytes()), StatusCode::kUnimplemented, key);
  }
}

TEST_F(ModelTest, GeometryOutOfBounds) {
  const auto refuse = [&](const std::string& key, uint32_t value, std::string_view words) {
    const Status status = LoadWith(
        {}, key, [&](GgufBuilder& extra, const std::string& name) { extra.Uint32(name, value); });
    ExpectRefused(status, StatusCode::kInvalidArgument, words);
  };
  refuse("llama.block_count", UINT32_MAX, "block_count");
  refuse("llama.block_count", 1U << 20, "block_count");
  refuse("llama.block_count", 0, "block_count");
  refuse("llama.block_count", 4, "block_count");  // a layer more than there are tensors for
  refuse("llama.embedding_length", 0, "embedding_length");
  refuse("llama.embedding_length", UINT32_MAX, "embedding_length");
  refuse("llama.embedding_length", 96, "has shape 64 x 300, expected 96 x 300");
  refuse("llama.attention.head_count", 0, "head_count");
  refuse("llama.attention.head_count", 5, "no multiple of 2 KV heads");
  refuse("llama.attention.head_count_kv", 8, "head_count_kv");
  refuse("llama.attention.key_length", 0, "key_length");
  refuse("llama.attention.key_length", 1U << 30, "key_length");
  refuse("llama.feed_forward_length", UINT32_MAX, "feed_forward_length");
  refuse("llama.context_length", 0, "context_length");
  refuse("tokenizer.ggml.eos_token_id", 300, "eos_token_id");
}

TEST_F(ModelTest, WrongTypes) {
  const auto refuse = [&](const std::string& key,
                          const std::function<void(GgufBuilder&, const std::string&)>& write) {
    ExpectRefused(LoadWith({}, key, write), StatusCode::kInvalidArgument, key);
  };
  refuse("llama.block_count", [](auto& b, auto& key) { b.String(key, "3"); });
  refuse("llama.block_count", [](auto& b, auto& key) { b.Float(key, 3.0F); });
  refuse("llama.attention.head_count", [](auto& b, auto& key) {
    b.Array(key, GgufType::kUint32, std::vector<uint32_t>{4, 4, 4});
  });
  refuse("llama.rope.freq_base", [](auto& b, auto& key) { b.Uint32(key, 10000); });
  refuse("llama.rope.freq_base", [](auto& b, auto& key) { b.Float(key, -1.0F); });
  refuse("llama.attention.layer_norm_rms_epsilon",
         [](auto& b, auto& key) { b.Float(key, std::nanf("")); });
  refuse("tokenizer.ggml.tokens", [](auto& b, auto& key) { b.String(key, "abc"); });
  refuse("tokenizer.ggml.tokens",
         [](auto& b, auto& key) { b.Array(key, GgufType::kUint32, std::vector<uint32_t>(300)); });
  refuse("tokenizer.ggml.token_type", [](auto& b, auto& key) {
    b.Array(key, GgufType::kInt32, std::vector<int32_t>{1, 2});
  });
  refuse("tokenizer.ggml.token_type", [](auto& b, auto& key) { b.Strings(key, {"1"}); });
  refuse("tokenizer.ggml.merges", [](auto& b, auto& key) { b.Float(key, 1.0F); });
  refuse("tokenizer.ggml.add_bos_token", [](auto& b, auto& key) { b.Uint32(key, 1); });
  refuse("tokenizer.ggml.bos_token_id", [](auto& b, auto& key) { b.String(key, "<s>"); });
}

TEST_F(ModelTest, ScoresOfAWrongTypeOrLength) {
  for (const int count : {0, 299, 301}) {
    GgufBuilder builder = test::TinyModelBuilder({});
    builder.Array("tokenizer.ggml.scores", GgufType::kFloat32,
                  std::vector<float>(static_cast<size_t>(count)));
    test::AddTinyTensors({}, builder);
    ExpectRefused(LoadStatus(builder.Bytes()), StatusCode::kInvalidArgument, "scores");
  }
  GgufBuilder builder = test::TinyModelBuilder({});
  builder.Array("tokenizer.ggml.scores", GgufType::kInt8, std::vector<int8_t>(300));
  test::AddTinyTensors({}, builder);
  ExpectRefused(LoadStatus(builder.Bytes()), StatusCode::kInvalidArgument,
                "is array of int8, expected an array of float32");
}

TEST_F(ModelTest, TensorsThatAreMissingOrTooMany) {
  GgufBuilder more = test::TinyModelBuilder({});
  test::AddTinyTensors({}, more);
  more.Tensor("blk.0.ffn_gate_exps.weight", DType::kF32, {8}, std::string(32, '\0'));
  ExpectRefused(LoadStatus(more.Bytes()), StatusCode::kUnimplemented, "ffn_gate_exps");

  GgufBuilder fewer = test::TinyModelBuilder({});
  TinyModelOptions none;
  none.layers = 0;
  test::AddTinyTensors(none, fewer);
  for (int i = 0; i < 27; ++i) {
    fewer.Tensor("filler" + std::to_string(i), DType::kF32, {8}, std::string(32, '\0'));
  }
  ExpectRefused(LoadStatus(fewer.Bytes()), StatusCode::kInvalidArgument,
                "tensor \"blk.0.attn_norm.weight\" is missing");
}

TEST_F(ModelTest, QuantisedWeightsLoad) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                            DType::kQ5_1, DType::kQ8_0}) {
    TinyModelOptions options;
    options.weights = dtype;
    options.embedding = DType::kQ8_0;
    EXPECT_NE(Load(options), nullptr) << TraitsOf(dtype).name;
  }
  for (const DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    TinyModelOptions options;
    options.weights = options.embedding = dtype;
    options.layers = 1;
    options.width = options.ffn_width = 256;
    options.heads = 16;
    EXPECT_NE(Load(options), nullptr) << TraitsOf(dtype).name;
  }
}

TEST_F(ModelTest, TruncatedAnywhereIsRefused) {
  TinyModelOptions options;
  options.layers = 1;
  const std::string whole = test::TinyModelBytes(options);
  for (size_t length = 0; length < whole.size(); length += 1 + whole.size() / 499) {
    EXPECT_FALSE(LoadStatus(whole.substr(0, length)).ok()) << length;
  }
}

// Damage in the numbers of the metadata: an error or a model that runs, never an abort.
TEST_F(ModelTest, RandomDamageNeverAborts) {
  TinyModelOptions options;
  options.layers = 1;
  options.architecture = Architecture::kGemma3;
  const std::string whole = test::TinyModelBytes(options);
  const size_t numbers = whole.find("tokenizer.ggml.model");
  const size_t table = whole.find("token_embd.weight");
  std::mt19937 random(13);
  int loaded = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bytes = whole;
    const size_t at = round % 2 == 0 ? random() % numbers : table + random() % 800;
    bytes[at] = static_cast<char>(random() % 3 == 0 ? bytes[at] ^ 1 : random());
    const auto model = LoadBytes(bytes, *backend_);
    if (!model.ok()) continue;
    ++loaded;
    EXPECT_GT((*model)->config.head_dim, 0);
    EXPECT_EQ((*model)->layers.size(), 1U);
  }
  EXPECT_GT(loaded, 0);
}

}  // namespace
}  // namespace kvasir
