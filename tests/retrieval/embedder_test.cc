#include "retrieval/embedder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "engine/model/bert.h"
#include "kernels/cpu/cpu_backend.h"
#include "test_support.h"

namespace kvasir {
namespace {

using testing::FindModel;
using testing::ReadAll;

constexpr size_t kWidth = 384;

std::shared_ptr<Backend> Cpu() {
  CpuOptions options;
  options.threads = 2;
  auto backend = CreateCpuBackend(options);
  return backend.ok() ? std::shared_ptr<Backend>(std::move(backend).value()) : nullptr;
}

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string FromBase64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (c == '=') break;
    bits = bits << 6 | static_cast<uint32_t>(kDigits.find(c));
    count += 6;
    if (count >= 8) out.push_back(static_cast<char>(bits >> (count -= 8)));
  }
  return out;
}

std::vector<float> GoldenVector(std::string_view line) {
  const std::string bytes = FromBase64(line);
  std::vector<float> vector(bytes.size() / 2);
  for (size_t i = 0; i < vector.size(); ++i) {
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + 2 * i, 2);
    vector[i] = F16ToF32(half);
  }
  return vector;
}

double Cosine(const float* a, const float* b, size_t width) {
  double ab = 0, aa = 0, bb = 0;
  for (size_t i = 0; i < width; ++i) {
    ab += double{a[i]} * double{b[i]};
    aa += double{a[i]} * double{a[i]};
    bb += double{b[i]} * double{b[i]};
  }
  return ab / std::sqrt(aa * bb);
}

class MiniLm : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = FindModel("all-MiniLM-L6-v2");
    if (folder_.empty()) GTEST_SKIP() << "skipped: model all-MiniLM-L6-v2 missing";
    auto made = Embedder::Create(folder_, Cpu());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    embedder_ = std::move(made).value();
  }
  std::string folder_;
  std::unique_ptr<Embedder> embedder_;
};

// sentence-transformers computes in fp32 as we do, and the golden file rounds to fp16 (relative
// 2^-11 a value, about 1e-7 of the cosine). Six layers of fp32 sums in another order differ by less
// than 1e-5; the requirement is 1e-3.
TEST_F(MiniLm, EqualsSentenceTransformersOn200Sentences) {
  const std::string golden = std::string(KVASIR_SOURCE_DIR) + "/tests/golden/";
  const auto sentences = Lines(golden + "embedding_sentences.txt");
  const auto vectors = Lines(golden + "embedding_minilm.txt");
  ASSERT_EQ(sentences.size(), 200u);
  ASSERT_EQ(vectors.size(), 200u);
  const auto ours = embedder_->Embed(sentences);
  ASSERT_TRUE(ours.ok()) << ours.status().ToString();
  double worst = 0;
  for (size_t i = 0; i < sentences.size(); ++i) {
    const std::vector<float> expected = GoldenVector(vectors[i]);
    ASSERT_EQ(expected.size(), kWidth);
    const double distance = 1 - Cosine(&(*ours)[i * kWidth], expected.data(), kWidth);
    EXPECT_LT(distance, 1e-5) << sentences[i];
    worst = std::max(worst, distance);
  }
  RecordProperty("worst_cosine_distance", std::to_string(worst));
}

TEST_F(MiniLm, VectorsHaveLengthOneAndDoNotDependOnTheirCompany) {
  const std::vector<std::string> texts = {"a short one", "", std::string(3000, 'w') + " long",
                                          "the question is how a B-tree page is split"};
  const auto together = embedder_->Embed(texts);
  ASSERT_TRUE(together.ok());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto alone = embedder_->Embed(std::span(&texts[i], 1));
    ASSERT_TRUE(alone.ok());
    EXPECT_EQ(std::memcmp(alone->data(), &(*together)[i * kWidth], kWidth * sizeof(float)), 0);
    double square = 0;
    for (const float v : *alone) square += double{v} * double{v};
    EXPECT_NEAR(square, 1.0, 1e-6);  // 384 roundings of 6e-8
  }
}

TEST_F(MiniLm, NoTextsAndBadText) {
  EXPECT_TRUE(embedder_->Embed({}).ok());
  const std::vector<std::string> bad = {"\xFF\xFE"};
  EXPECT_EQ(embedder_->Embed(bad).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(MiniLm, IdentityTellsSettingsApart) {
  EmbedderOptions options;
  options.max_tokens = 128;
  const auto other = Embedder::Create(folder_, Cpu(), options);
  ASSERT_TRUE(other.ok());
  EXPECT_NE((*other)->identity(), embedder_->identity());
  options.max_tokens = 513;  // more than the model has positions
  EXPECT_EQ(Embedder::Create(folder_, Cpu(), options).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(MiniLm, BertRefusesBadSequences) {
  const auto backend = Cpu();
  auto bert = Bert::Load(folder_, *backend);
  ASSERT_TRUE(bert.ok());
  std::vector<float> hidden;
  const auto encode = [&](std::vector<int32_t> ids) {
    const std::vector<std::vector<int32_t>> sequences = {std::move(ids)};
    return (*bert)->Encode(sequences, &hidden).code();
  };
  EXPECT_EQ(encode({}), StatusCode::kInvalidArgument);
  EXPECT_EQ(encode({-1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(encode({30522}), StatusCode::kInvalidArgument);
  EXPECT_EQ(encode(std::vector<int32_t>(513, 5)), StatusCode::kInvalidArgument);
  EXPECT_EQ(encode(std::vector<int32_t>(512, 5)), StatusCode::kOk);
  EXPECT_EQ(hidden.size(), 512 * kWidth);
}

TEST(EmbedderFiles, MissingOrForeignFilesAreNamed) {
  const auto missing = Embedder::Create("/no/such/folder", Cpu());
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("/no/such/folder/config.json"), std::string::npos);

  const auto folder = std::filesystem::temp_directory_path() / "kvasir_embedder_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << "{\"model_type\": \"roberta\"}";
  const auto foreign = Embedder::Create(folder.string(), Cpu());
  EXPECT_EQ(foreign.status().code(), StatusCode::kUnimplemented);
  EXPECT_NE(foreign.status().message().find("roberta"), std::string::npos);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace kvasir
