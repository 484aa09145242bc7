#include "retrieval/record.h"

#include <gtest/gtest.h>

#include "retrieval/content_digest.h"

namespace kvasir {
namespace {

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const uint8_t byte : Sha256(bytes)) {
    hex.push_back("0123456789abcdef"[byte >> 4]);
    hex.push_back("0123456789abcdef"[byte & 15]);
  }
  return hex;
}

// The examples of FIPS 180-4.
TEST(Sha256, PublishedExamples) {
  EXPECT_EQ(Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(ContentDigest, PartsDoNotRunTogether) {
  EXPECT_EQ(ContentDigest({"ab", "c"}).size(), 64u);
  EXPECT_NE(ContentDigest({"ab", "c"}), ContentDigest({"a", "bc"}));
  EXPECT_NE(ContentDigest({"", "a"}), ContentDigest({"a", ""}));
  EXPECT_EQ(ContentDigest({"ab", "c"}), ContentDigest({"ab", "c"}));
}

// Every single flipped bit and every cut is noticed.
TEST(Record, DamageIsNoticed) {
  RecordWriter writer(RecordKind::kChunk);
  writer.Int(-7);
  writer.Text("text");
  writer.Array(std::span<const int32_t>(std::vector<int32_t>{1, 2, 3}));
  const std::string good = writer.Finish();
  const auto read = [](std::string_view bytes) -> Status {
    KVASIR_ASSIGN_OR_RETURN(RecordReader in, RecordReader::Open(RecordKind::kChunk, bytes, "x"));
    EXPECT_EQ(in.Int(), -7);
    EXPECT_EQ(in.Text(), "text");
    EXPECT_EQ(in.Array<int32_t>(), (std::vector<int32_t>{1, 2, 3}));
    return in.Finish();
  };
  EXPECT_TRUE(read(good).ok());
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(read(bad).code(), StatusCode::kDataLoss);
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(read(good.substr(0, size)).code(), StatusCode::kDataLoss);
  }
  EXPECT_EQ(RecordReader::Open(RecordKind::kVector, good, "x").status().code(),
            StatusCode::kDataLoss)
      << "another kind";
}

TEST(Record, OlderVersionsAreReadAndNewerRefused) {
  const auto open = [](RecordKind kind, uint8_t version) {
    std::string record = RecordWriter(kind).Finish();
    record[1] = static_cast<char>(version);
    record.resize(record.size() - sizeof(uint64_t));
    const uint64_t checksum = RecordChecksum(record);
    record.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
    const auto read = RecordReader::Open(kind, record, "x");
    return read.ok() ? int{read->version()} : -static_cast<int>(read.status().code());
  };
  constexpr int kRefused = -static_cast<int>(StatusCode::kFailedPrecondition);
  for (const RecordKind kind : {RecordKind::kCollection, RecordKind::kChunk}) {
    const uint8_t newest = RecordVersionOf(kind);
    for (uint8_t version = 1; version <= newest; ++version) EXPECT_EQ(open(kind, version), version);
    EXPECT_EQ(open(kind, static_cast<uint8_t>(newest + 1)), kRefused);
    EXPECT_EQ(open(kind, 0), kRefused);
  }
}

// Lengths that lie, under a right checksum: a soft failure, no allocation by a number.
TEST(Record, LyingLengths) {
  for (const int64_t length : {int64_t{-1}, int64_t{9}, INT64_MAX, INT64_MIN}) {
    RecordWriter writer(RecordKind::kChunk);
    writer.Int(length);
    writer.Int(0);
    const std::string bytes = writer.Finish();
    auto in = RecordReader::Open(RecordKind::kChunk, bytes, "x");
    ASSERT_TRUE(in.ok());
    EXPECT_TRUE(in->Array<int64_t>().empty());
    EXPECT_FALSE(in->ok());
    EXPECT_EQ(in->Text(), "") << "and every read after it";
    EXPECT_EQ(in->Finish().code(), StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace kvasir
