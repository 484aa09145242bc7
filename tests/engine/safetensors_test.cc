// The safetensors reader: right files, and every rule of the format broken once.
#include "engine/model/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <sstream>

#include "tests/engine/gguf_builder.h"

namespace kvasir {
namespace {

std::string FileOf(const std::string& header, const std::string& data) {
  std::string bytes;
  test::AppendRaw(&bytes, static_cast<uint64_t>(header.size()));
  return bytes + header + data;
}

Result<SafetensorsFile> OpenBytes(const std::string& bytes) {
  return SafetensorsFile::Open(test::WriteTempFile("x.safetensors", bytes));
}

void ExpectRefused(const std::string& header, size_t data_bytes, std::string_view words) {
  const Status status = OpenBytes(FileOf(header, std::string(data_bytes, '\0'))).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << header << "\n" << status.ToString();
  EXPECT_NE(status.message().find(words), std::string::npos) << status.ToString();
}

// 1.0 and -2.0 in F32, 0.5 in F16 and 3.0 in BF16, written out by hand.
TEST(Safetensors, ReadsAFileWrittenByHand) {
  const std::string header =
      R"( {"__metadata__" : {"format":"pt"}, "a":{"dtype":"F32","shape":[2,1],)"
      R"("data_offsets":[0,8]}, "h\u0041":{"shape":[],"data_offsets":[8,10],"dtype":"F16"},)"
      R"("b":{"dtype":"BF16","shape":[1],"data_offsets":[10,12]}}   )";
  const auto file =
      OpenBytes(FileOf(header, std::string("\0\0\x80\x3F\0\0\0\xC0\x00\x38\x40\x40", 12)));
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  const int64_t matrix[] = {2, 1};
  EXPECT_EQ(*file->ReadF32("a", matrix), (std::vector<float>{1.0F, -2.0F}));
  EXPECT_EQ(*file->ReadF32("hA", {}), (std::vector<float>{0.5F}));
  const int64_t one[] = {1};
  EXPECT_EQ(*file->ReadF32("b", one), (std::vector<float>{3.0F}));
  EXPECT_EQ(file->Find("nope"), nullptr);
}

TEST(Safetensors, ReadF32NamesWhatIsWrong) {
  const auto file = OpenBytes(FileOf(R"({"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                                     R"("f":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]}})",
                                     std::string(12, '\0')));
  ASSERT_TRUE(file.ok());
  const int64_t one[] = {1};
  EXPECT_EQ(file->ReadF32("absent", one).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(file->ReadF32("i", one).status().code(), StatusCode::kUnimplemented);
  const Status shape = file->ReadF32("f", one).status();
  EXPECT_EQ(shape.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(shape.message().find("[1, 1], expected [1]"), std::string::npos) << shape.message();
}

TEST(Safetensors, RandomTensorsComeBack) {
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    std::string header = "{", data;
    std::vector<std::vector<float>> expected;
    for (int i = 0; i < 1 + static_cast<int>(random() % 8); ++i) {
      const size_t count = random() % 20;
      const size_t begin = data.size();
      expected.emplace_back();
      for (size_t j = 0; j < count; ++j) {
        expected.back().push_back(std::ldexp(static_cast<float>(random() % 1000), -5));
        test::AppendRaw(&data, expected.back().back());
      }
      std::ostringstream entry;
      entry << (i > 0 ? "," : "") << "\"t" << i << R"(":{"dtype":"F32","shape":[)" << count
            << R"(],"data_offsets":[)" << begin << "," << data.size() << "]}";
      header += entry.str();
    }
    const auto file = OpenBytes(FileOf(header + "}", data));
    ASSERT_TRUE(file.ok()) << file.status().ToString();
    for (size_t i = 0; i < expected.size(); ++i) {
      const int64_t shape[] = {static_cast<int64_t>(expected[i].size())};
      EXPECT_EQ(*file->ReadF32(std::string("t").append(std::to_string(i)), shape), expected[i]);
    }
  }
}

TEST(Safetensors, HeaderLength) {
  EXPECT_FALSE(OpenBytes("").ok());
  EXPECT_FALSE(OpenBytes("1234567").ok());
  for (const uint64_t length : {uint64_t{3}, uint64_t{200'000'000}, UINT64_MAX, UINT64_MAX - 7}) {
    std::string bytes;
    test::AppendRaw(&bytes, length);
    const Status status = OpenBytes(bytes + "{}").status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("header length"), std::string::npos) << status.ToString();
  }
}

TEST(Safetensors, SpansMustCoverTheDataOnce) {
  const auto two = [](const char* a, const char* b) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  EXPECT_TRUE(OpenBytes(FileOf(two("[4,8]", "[0,4]"), std::string(8, 'x'))).ok());
  ExpectRefused(two("[0,4]", "[2,6]"), 8, "begins at byte 2");            // overlap
  ExpectRefused(two("[0,4]", "[0,4]"), 4, "begins at byte 0");            // twice the same
  ExpectRefused(two("[0,4]", "[6,10]"), 10, "begins at byte 6");          // gap
  ExpectRefused(two("[0,4]", "[4,8]"), 9, "tensors end at byte 8 of 9");  // rest
  ExpectRefused(two("[0,4]", "[4,8]"), 7, "ends at byte 8 of 7");         // beyond the end
  ExpectRefused(two("[0,4]", "[8,4]"), 8, "begin <= end");
  ExpectRefused(two("[0,4]", "[18446744073709551612,18446744073709551615]"), 8, "ends at byte");
}

TEST(Safetensors, ShapeTimesTypeIsTheSpan) {
  const auto of = [](const std::string& shape, const std::string& offsets) {
    return R"({"t":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  EXPECT_TRUE(OpenBytes(FileOf(of("[2,2]", "[0,16]"), std::string(16, 'x'))).ok());
  EXPECT_TRUE(OpenBytes(FileOf(of("[0,7]", "[0,0]"), "")).ok());
  ExpectRefused(of("[2,2]", "[0,15]"), 15, "shape and type");
  ExpectRefused(of("[4294967296,4294967296]", "[0,0]"), 0, "shape and type");  // wraps to 0
  ExpectRefused(of("[4611686018427387904]", "[0,0]"), 0, "shape and type");    // x 4 wraps
  ExpectRefused(of("[18446744073709551615]", "[0,0]"), 0, "shape too large");
  ExpectRefused(of("[18446744073709551616]", "[0,0]"), 0, "number too large");
  ExpectRefused(of("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "too many numbers");
}

TEST(Safetensors, GrammarIsStrict) {
  const std::string good = R"("t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  ASSERT_TRUE(OpenBytes(FileOf("{" + good + "}", "x")).ok());
  const std::vector<std::string> bad_headers = {
      "",
      "[]",
      "{",
      "{" + good,
      "{" + good + "}}",
      "{" + good + ",}",
      "{" + good + "} x",
      "{" + good + "," + good + "}",
      R"({"t":1})",
      R"({"t":{}})",
      R"({"t":{"dtype":"U8","shape":[1]}})",
      R"({"t":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}})",
      R"({"t":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})",
      R"({"t":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})",
      R"({"t":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}})",
      R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0]}})",
      R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})",
      R"({"t":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})",
      R"({"t\q":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      R"({"t\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
      R"({"__metadata__":{"a":1},)" + good + "}",
      R"({"__metadata__":{"a":{"b":"c"}},)" + good + "}",
      "{\"a\nb\":1}",
      std::string(100000, '['),
      std::string(100000, '{')};
  for (const std::string& bad : bad_headers) {
    const Status status = OpenBytes(FileOf(bad, "x")).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad.substr(0, 80);
  }
}

TEST(Safetensors, UnknownElementTypes) {
  const Status status =
      OpenBytes(FileOf(R"({"t":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", "x")).status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_NE(status.message().find("F4"), std::string::npos);
}

TEST(Safetensors, TruncatedAtEveryByte) {
  const std::string whole = FileOf(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                   R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})",
                                   std::string(11, 'x'));
  ASSERT_TRUE(OpenBytes(whole).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(OpenBytes(whole.substr(0, length)).ok()) << length;
  }
}

TEST(Safetensors, RandomDamageNeverReadsOutside) {
  const std::string whole =
      FileOf(R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
             std::string(8, 'x'));
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = whole;
    for (unsigned flips = 1 + random() % 2; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const auto file = OpenBytes(bytes);
    if (!file.ok()) continue;
    for (const auto& [name, tensor] : file->tensors()) (void)file->ReadF32(name, tensor.shape);
  }
}

}  // namespace
}  // namespace kvasir
