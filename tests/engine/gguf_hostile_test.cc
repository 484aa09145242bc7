// The GGUF reader on files made to hurt: each kind of damage that has broken other readers ends in
// a clean error, before anything is allocated by a number out of the file.
#include <gtest/gtest.h>

#include <random>

#include "engine/model/gguf.h"
#include "tests/engine/gguf_builder.h"

namespace kvasir {
namespace {

using test::AppendRaw;
using test::AppendString;
using test::GgufBuilder;

constexpr uint32_t kF32Code = 0;
constexpr uint32_t kQ8Code = 8;

Status OpenStatus(const std::string& bytes) {
  return GgufFile::Open(test::WriteTempFile("hostile.gguf", bytes)).status();
}

void ExpectRefused(const GgufBuilder& builder, std::string_view words,
                   StatusCode code = StatusCode::kInvalidArgument) {
  const Status status = OpenStatus(builder.Bytes());
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_NE(status.message().find(words), std::string::npos) << status.ToString();
}

TEST(GgufHostile, NotAGgufFile) {
  EXPECT_EQ(OpenStatus("").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenStatus("GGU").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(OpenStatus(std::string(4096, 'x')).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(GgufFile::Open("/nonexistent/model.gguf").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(GgufFile::Open("/").status().code(), StatusCode::kInvalidArgument);
}

TEST(GgufHostile, HugeTensorCount) {
  for (const int64_t count : {int64_t{1} << 20, INT64_MAX, int64_t{-1}}) {
    GgufBuilder builder;
    builder.extra_tensors = count;
    ExpectRefused(builder, "tensor count");
  }
}

TEST(GgufHostile, HugeMetadataCount) {
  for (const int64_t count : {int64_t{1} << 20, INT64_MAX, int64_t{-1}}) {
    GgufBuilder builder;
    builder.extra_pairs = count;
    ExpectRefused(builder, "metadata count");
  }
}

TEST(GgufHostile, CountsBeyondTheEntries) {
  GgufBuilder builder;
  builder.Uint32("a", 1);
  builder.Tensor("t", DType::kF32, {64}, std::string(256, '\0'));
  builder.extra_pairs = 1;
  EXPECT_FALSE(OpenStatus(builder.Bytes()).ok());
  builder.extra_pairs = 0;
  builder.extra_tensors = 1;
  EXPECT_FALSE(OpenStatus(builder.Bytes()).ok());
}

TEST(GgufHostile, StringLengthOverflow) {
  for (const uint64_t length : {uint64_t{100000}, uint64_t{1} << 40, UINT64_MAX, UINT64_MAX - 7}) {
    std::string raw;
    AppendRaw(&raw, length);
    GgufBuilder value;
    value.Pair("general.name", GgufType::kString, raw + "abc");
    ExpectRefused(value, "ends inside metadata \"general.name\"");

    GgufBuilder key;
    key.Uint32("x", 1);
    std::string bytes = key.Bytes();
    std::memcpy(bytes.data() + 24, &length, sizeof length);  // the first key's length
    EXPECT_FALSE(OpenStatus(bytes).ok());
  }
}

TEST(GgufHostile, ArrayCountOverflow) {
  for (const uint64_t count : {uint64_t{1000}, uint64_t{1} << 62, UINT64_MAX / 4 + 2, UINT64_MAX}) {
    for (const GgufType element : {GgufType::kFloat32, GgufType::kUint64, GgufType::kString}) {
      GgufBuilder builder;
      builder.RawArray("tokenizer.ggml.scores", element, count, std::string(16, '\0'));
      ExpectRefused(builder, "ends inside metadata \"tokenizer.ggml.scores\"");
    }
  }
}

TEST(GgufHostile, StringInsideAnArrayOverflows) {
  std::string raw;
  AppendString(&raw, "fine");
  AppendRaw(&raw, UINT64_MAX - 3);
  GgufBuilder builder;
  builder.RawArray("tokenizer.ggml.tokens", GgufType::kString, 2, raw);
  ExpectRefused(builder, "ends inside");
}

TEST(GgufHostile, NestedArrays) {
  std::string inner;
  AppendRaw(&inner, static_cast<uint32_t>(GgufType::kUint8));
  AppendRaw(&inner, uint64_t{1});
  GgufBuilder builder;
  builder.RawArray("deep", GgufType::kArray, 1, inner + "x");
  ExpectRefused(builder, "array of arrays", StatusCode::kUnimplemented);
}

TEST(GgufHostile, UnknownValueTypes) {
  for (const uint32_t type : {13U, 255U, UINT32_MAX}) {
    GgufBuilder scalar;
    scalar.Pair("k", static_cast<GgufType>(type), "xxxxxxxx");
    ExpectRefused(scalar, "unknown type");
    GgufBuilder array;
    array.RawArray("k", static_cast<GgufType>(type), 1, "xxxxxxxx");
    ExpectRefused(array, "unknown element type");
  }
}

TEST(GgufHostile, KeysAndTensorsTwice) {
  GgufBuilder keys;
  keys.Uint32("same", 1);
  keys.Pair("same", GgufType::kBool, std::string(1, '\1'), true);
  ExpectRefused(keys, "\"same\" appears twice");
  GgufBuilder tensors;
  tensors.Tensor("same", DType::kF32, {8}, std::string(32, '\0'));
  tensors.Tensor("same", DType::kF32, {8}, std::string(32, '\0'));
  ExpectRefused(tensors, "\"same\" appears twice");
}

TEST(GgufHostile, TensorBeyondTheEnd) {
  const auto refused = [](const std::vector<uint64_t>& dims, uint64_t offset) {
    GgufBuilder builder;
    builder.Tensor("first", DType::kF32, {64}, std::string(256, '\0'));
    builder.RawTensor("second", dims, kF32Code, offset);
    ExpectRefused(builder, "ends beyond the file");
  };
  refused({64}, 256);
  refused({1}, uint64_t{1} << 40);
  refused({1}, UINT64_MAX - 31);  // aligned; offset + size wraps
  refused({uint64_t{1} << 40}, 0);
}

TEST(GgufHostile, ProductOfDimensionsWraps) {
  const auto refused = [](const std::vector<uint64_t>& dims, uint32_t type, std::string_view why) {
    GgufBuilder builder;
    builder.RawTensor("t", dims, type, 0);
    ExpectRefused(builder, why);
  };
  const uint64_t big = uint64_t{1} << 32;
  refused({big, big}, kF32Code, "product of its dimensions overflows");
  refused({big, big, 1, 2}, kQ8Code, "product of its dimensions overflows");
  refused({big, big >> 2}, kF32Code, "size in bytes overflows");
  refused({UINT64_MAX}, kF32Code, "a dimension of");
  refused({uint64_t{1} << 63}, kF32Code, "a dimension of");
  refused({4, 0}, kF32Code, "a dimension of 0");
}

TEST(GgufHostile, NumberOfDimensions) {
  GgufBuilder none;
  none.RawTensor("t", {}, kF32Code, 0);
  none.Uint32("filler", 1);  // the row alone is shorter than any right one
  ExpectRefused(none, "0 dimensions");
  GgufBuilder many;
  many.RawTensor("t", {1, 1, 1, 1, 1}, kF32Code, 0);
  ExpectRefused(many, "5 dimensions");
  GgufBuilder huge;
  huge.Tensor("t", DType::kF32, {1}, "\0\0\0");
  std::string bytes = huge.Bytes();
  const uint32_t count = UINT32_MAX;
  std::memcpy(bytes.data() + 24 + 9, &count, sizeof count);
  EXPECT_EQ(OpenStatus(bytes).code(), StatusCode::kInvalidArgument);
}

TEST(GgufHostile, RowsThatAreNoWholeBlocks) {
  GgufBuilder builder;
  builder.RawTensor("t", {33, 32}, kQ8Code, 0);
  ExpectRefused(builder, "no multiple of");
}

TEST(GgufHostile, TensorTypes) {
  for (const uint32_t type : {4U, 9U, 16U, 31U, 1000U, UINT32_MAX}) {
    GgufBuilder builder;
    builder.RawTensor("t", {256}, type, 0);
    ExpectRefused(builder, "tensor type " + std::to_string(type), StatusCode::kUnimplemented);
  }
}

TEST(GgufHostile, AlignmentIsZeroOddOrNoNumber) {
  for (const uint32_t alignment : {0U, 1U, 7U, 48U, UINT32_MAX}) {
    GgufBuilder builder;
    builder.Uint32("general.alignment", alignment);
    ExpectRefused(builder, "general.alignment");
  }
  GgufBuilder text;
  text.String("general.alignment", "32");
  ExpectRefused(text, "expected an integer");
  GgufBuilder array;
  array.Array("general.alignment", GgufType::kUint32, std::vector<uint32_t>{32});
  ExpectRefused(array, "expected an integer");
  GgufBuilder real;
  real.Float("general.alignment", 32.0F);
  ExpectRefused(real, "expected an integer");
}

TEST(GgufHostile, MisalignedAndOverlappingTensors) {
  GgufBuilder misaligned;
  misaligned.Tensor("a", DType::kF32, {64}, std::string(256, '\0'));
  misaligned.RawTensor("b", {1}, kF32Code, 4);
  ExpectRefused(misaligned, "no multiple of the alignment");
  GgufBuilder overlap;
  overlap.Tensor("a", DType::kF32, {64}, std::string(256, '\0'));
  overlap.RawTensor("b", {8}, kF32Code, 32);
  ExpectRefused(overlap, "overlap");
}

std::string SmallFile() {
  GgufBuilder builder;
  builder.String("general.architecture", "llama");
  builder.Strings("tokens", {"a", "bc"});
  builder.Array("scores", GgufType::kFloat32, std::vector<float>{1, 2});
  builder.Bool("flag", true);
  builder.Tensor("a", DType::kF32, {2, 2}, std::string(16, '\1'));
  builder.Tensor("b", DType::kQ8_0, {32}, std::string(34, '\2'));
  return builder.Bytes();
}

TEST(GgufHostile, TruncatedAtEveryByte) {
  const std::string whole = SmallFile();
  ASSERT_TRUE(OpenStatus(whole).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    const Status status = OpenStatus(whole.substr(0, length));
    EXPECT_FALSE(status.ok()) << length;
  }
}

// Any bytes may come: whatever is accepted must be readable to its end (sanitizers watch).
TEST(GgufHostile, RandomDamageNeverReadsOutside) {
  const std::string whole = SmallFile();
  std::mt19937 random(11);
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = whole;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random() % 4 == 0 ? 0xFF : random());
    }
    const Result<GgufFile> file = GgufFile::Open(test::WriteTempFile("damaged.gguf", bytes));
    if (!file.ok()) continue;
    ++accepted;
    unsigned sum = 0;
    for (const auto& [name, tensor] : file->tensors()) {
      for (const std::byte byte : tensor.data) sum += static_cast<unsigned>(byte);
    }
    (void)file->Strings("tokens");
    (void)file->Floats("scores");
    (void)file->Bool("flag");
    EXPECT_LT(sum, 1U << 20);
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace kvasir
