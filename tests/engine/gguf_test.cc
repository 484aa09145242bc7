// The GGUF reader on files that are right: every type, both versions, random contents.
#include "engine/model/gguf.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/engine/gguf_builder.h"

namespace kvasir {
namespace {

using test::GgufBuilder;

Result<GgufFile> OpenBytes(const std::string& bytes) {
  return GgufFile::Open(test::WriteTempFile("reader.gguf", bytes));
}

GgufFile MustOpen(const GgufBuilder& builder) {
  Result<GgufFile> file = OpenBytes(builder.Bytes());
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  return std::move(file).value();
}

// A file laid out byte by byte: one string, one tensor of two floats.
TEST(Gguf, ReadsAFileWrittenByHand) {
  std::string bytes("GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", 24);
  bytes += std::string("\x01\0\0\0\0\0\0\0k\x08\0\0\0\x02\0\0\0\0\0\0\0hi", 23);
  bytes += std::string("\x01\0\0\0\0\0\0\0t\x01\0\0\0\x02\0\0\0\0\0\0\0", 21);  // name, dims [2]
  bytes += std::string("\0\0\0\0\0\0\0\0\0\0\0\0", 12);                         // F32, offset 0
  bytes.resize(96, '\0');
  bytes += std::string("\0\0\x80\x3F\0\0\0\xC0", 8);  // 1.0, -2.0
  const Result<GgufFile> file = OpenBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(*file->String("k"), "hi");
  const GgufTensor* tensor = file->FindTensor("t");
  ASSERT_NE(tensor, nullptr);
  EXPECT_TRUE(tensor->IsVector(2));
  float values[2];
  DequantizeRow(tensor->dtype, tensor->data.data(), 2, values);
  EXPECT_EQ(values[0], 1.0F);
  EXPECT_EQ(values[1], -2.0F);
}

TEST(Gguf, ReadsEveryScalarType) {
  GgufBuilder builder;
  builder.Scalar("u8", GgufType::kUint8, uint8_t{200});
  builder.Scalar("i8", GgufType::kInt8, int8_t{-100});
  builder.Scalar("u16", GgufType::kUint16, uint16_t{60000});
  builder.Scalar("i16", GgufType::kInt16, int16_t{-30000});
  builder.Scalar("u32", GgufType::kUint32, uint32_t{4000000000});
  builder.Scalar("i32", GgufType::kInt32, int32_t{-2000000000});
  builder.Scalar("u64", GgufType::kUint64, uint64_t{1} << 40);
  builder.Scalar("i64", GgufType::kInt64, -(int64_t{1} << 40));
  builder.Scalar("f32", GgufType::kFloat32, 0.5F);
  builder.Scalar("f64", GgufType::kFloat64, 0.1);
  builder.Bool("bool", true);
  const GgufFile file = MustOpen(builder);
  const auto integer = [&](const char* key) {
    return file.Integer(key, INT64_MIN, INT64_MAX).value();
  };
  EXPECT_EQ(integer("u8"), 200);
  EXPECT_EQ(integer("i8"), -100);
  EXPECT_EQ(integer("u16"), 60000);
  EXPECT_EQ(integer("i16"), -30000);
  EXPECT_EQ(integer("u32"), 4000000000);
  EXPECT_EQ(integer("i32"), -2000000000);
  EXPECT_EQ(integer("u64"), int64_t{1} << 40);
  EXPECT_EQ(integer("i64"), -(int64_t{1} << 40));
  EXPECT_EQ(*file.Real("f32"), 0.5);
  EXPECT_EQ(*file.Real("f64"), 0.1);
  EXPECT_TRUE(*file.Bool("bool"));
}

TEST(Gguf, ReadsArrays) {
  GgufBuilder builder;
  builder.Strings("strings", {"a", "", std::string("nul\0inside", 10)});
  builder.Array("floats", GgufType::kFloat32, std::vector<float>{1.5F, -2.0F});
  builder.Array("ints", GgufType::kInt32, std::vector<int32_t>{-1, 7});
  builder.Strings("none", {});
  const GgufFile file = MustOpen(builder);
  EXPECT_EQ(*file.Strings("strings"),
            (std::vector<std::string>{"a", "", std::string("nul\0inside", 10)}));
  EXPECT_EQ(*file.Floats("floats"), (std::vector<float>{1.5F, -2.0F}));
  EXPECT_EQ(*file.Integers("ints"), (std::vector<int32_t>{-1, 7}));
  EXPECT_TRUE(file.Strings("none")->empty());
}

TEST(Gguf, WrongTypesAndMissingKeysAreNamed) {
  GgufBuilder builder;
  builder.String("text", "x");
  builder.Uint32("number", 5);
  builder.Float("infinite", 1.0F / 0.0F);
  builder.Strings("strings", {"a"});
  const GgufFile file = MustOpen(builder);
  EXPECT_EQ(file.Integer("absent", 0, 1).status().code(), StatusCode::kNotFound);
  for (const Status& status :
       {file.Integer("text", 0, 9).status(), file.String("number").status(),
        file.Real("number").status(), file.Bool("number").status(), file.Floats("strings").status(),
        file.Integers("strings").status(), file.Strings("text").status(),
        file.Integer("number", 0, 4).status(), file.Real("infinite").status()}) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("metadata \""), std::string::npos) << status.message();
  }
}

TEST(Gguf, VersionTwoIsTheSame) {
  GgufBuilder builder;
  builder.version = 2;
  builder.Uint32("n", 3);
  EXPECT_EQ(*MustOpen(builder).Integer("n", 0, 9), 3);
}

TEST(Gguf, OtherVersionsAreUnimplemented) {
  for (const uint32_t version : {0U, 1U, 4U, 0x03000000U}) {
    GgufBuilder builder;
    builder.version = version;
    EXPECT_EQ(OpenBytes(builder.Bytes()).status().code(), StatusCode::kUnimplemented) << version;
  }
}

TEST(Gguf, AlignmentOfTheFileIsKept) {
  for (const uint32_t alignment : {8U, 64U, 4096U}) {
    GgufBuilder builder;
    builder.alignment = alignment;
    builder.Uint32("general.alignment", alignment);
    builder.Tensor("a", DType::kF32, {1}, std::string(4, '\x01'));
    builder.Tensor("b", DType::kF32, {1}, std::string(4, '\x02'));
    const GgufFile file = MustOpen(builder);
    EXPECT_EQ(file.FindTensor("a")->data[0], std::byte{1});
    EXPECT_EQ(file.FindTensor("b")->data[0], std::byte{2});
  }
}

TEST(Gguf, RandomContentsComeBack) {
  std::mt19937 random(7);
  constexpr DType kTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ4_0,
                              DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0,
                              DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};
  for (int round = 0; round < 20; ++round) {
    GgufBuilder builder;
    std::vector<uint32_t> numbers(1 + random() % 20);
    for (size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = random();
      builder.Uint32("key" + std::to_string(i), numbers[i]);
    }
    std::vector<std::string> data;
    for (size_t i = 0; i < std::size(kTypes); ++i) {
      const int64_t rows = 1 + random() % 4;
      data.emplace_back(BytesOf(kTypes[i], static_cast<size_t>(256 * rows)), '\0');
      for (char& byte : data.back()) byte = static_cast<char>(random());
      builder.Tensor("tensor" + std::to_string(i), kTypes[i], {256, rows}, data.back());
    }
    const GgufFile file = MustOpen(builder);
    for (size_t i = 0; i < numbers.size(); ++i) {
      EXPECT_EQ(*file.Integer("key" + std::to_string(i), 0, UINT32_MAX), numbers[i]);
    }
    for (size_t i = 0; i < data.size(); ++i) {
      const GgufTensor* tensor = file.FindTensor("tensor" + std::to_string(i));
      ASSERT_NE(tensor, nullptr);
      EXPECT_EQ(tensor->dtype, kTypes[i]);
      ASSERT_EQ(tensor->data.size(), data[i].size());
      EXPECT_EQ(std::memcmp(tensor->data.data(), data[i].data(), data[i].size()), 0);
    }
  }
}

}  // namespace
}  // namespace kvasir
