#include "cache/chunk_key.h"

#include <functional>
#include <set>

#include "tests/cache/fixture.h"

namespace kvasir {
namespace {

using Change = std::function<void(FingerprintFields&)>;

TEST(Fingerprint, EveryFieldMatters) {
  const std::vector<Change> changes = {
      [](auto& f) { f.model_digest[0] = 'f'; },
      [](auto& f) { f.tokenizer += "x"; },
      [](auto& f) { f.context = EncodingContext::kPrimer; },
      [](auto& f) { f.context = EncodingContext::kBare; },
      [](auto& f) {
        f.anchor_ids = {1, 2, 4};
      },
      [](auto& f) {
        f.anchor_ids = {1, 2};
      },
      [](auto& f) { f.primer_id = std::string(32, 'p'); },
      [](auto& f) { std::swap(f.layout.kv_heads, f.layout.head_dim); },  // same size
      [](auto& f) { f.layout.layers = 6, f.layout.kv_heads = 1; },       // same size
      [](auto& f) { f.layout.dtype = DType::kBF16; },
      [](auto& f) { f.ropes[0].pairing = RopePairing::kInterleaved; },
      [](auto& f) { f.ropes[0].inv_freq[2] = std::nextafter(0.01, 1.0); },
      [](auto& f) { f.ropes[0].magnitude = 1.1f; },
      [](auto& f) { f.ropes.push_back(f.ropes[0]); },
      [](auto& f) { f.layer_rope[1] = 1; },
      [](auto& f) { f.layer_window[1] = 512; },
      [](auto& f) { f.codec = KvCodec::kF16; },
      [](auto& f) { f.numerics = "matmul=bf16"; },
  };
  std::set<Digest128> seen = {Fingerprint(SomeFields())};
  for (size_t i = 0; i < changes.size(); ++i) {
    FingerprintFields fields = SomeFields();
    changes[i](fields);
    EXPECT_TRUE(seen.insert(Fingerprint(fields)).second) << "change " << i << " is not seen";
  }
  EXPECT_EQ(Fingerprint(SomeFields()), Fingerprint(SomeFields()));
}

TEST(Fingerprint, FieldsDoNotRunIntoEachOther) {
  FingerprintFields a = SomeFields(), b = SomeFields();
  a.model_digest = std::string("ab"), a.tokenizer = std::string("c");
  b.model_digest = std::string("a"), b.tokenizer = std::string("bc");
  EXPECT_NE(Fingerprint(a), Fingerprint(b));
}

TEST(ChunkKey, DigestOfTokensByHand) {
  // XXH3-128 of no bytes is a published constant (seed 0).
  EXPECT_EQ(DigestTokens({}).Hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(ChunkKey, BytesParseBack) {
  for (const std::string& name : {std::string(), std::string("kb"), std::string("a\0b\xff", 4)}) {
    const ChunkKey key = MakeChunkKey(name, {1, 2}, RandomTokens(7, 1));
    const auto parsed = ChunkKey::Parse(key.Bytes());
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(*parsed, key);
    EXPECT_TRUE(key.Bytes().starts_with(ChunkKey::NamespaceBytes(name)));
  }
}

TEST(ChunkKey, NamespacesNeitherCollideNorNest) {
  const std::vector<int32_t> ids = RandomTokens(5, 2);
  const std::string a = MakeChunkKey("kb", {1, 2}, ids).Bytes();
  const std::string b = MakeChunkKey("kb1", {1, 2}, ids).Bytes();
  EXPECT_NE(a, b);
  EXPECT_FALSE(b.starts_with(ChunkKey::NamespaceBytes("kb")));
}

TEST(ChunkKey, RandomKeysAreDistinct) {
  std::set<std::string> seen;
  for (uint32_t seed = 0; seed < 500; ++seed) {
    seen.insert(MakeChunkKey("n", {0, seed % 5}, RandomTokens(3, seed / 5)).Bytes());
  }
  EXPECT_EQ(seen.size(), 500u);
}

TEST(ChunkKey, MalformedBytesAreRefused) {
  const std::string good = MakeChunkKey("kb", {1, 2}, RandomTokens(5, 2)).Bytes();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ChunkKey::Parse(good.substr(0, size)).ok());
  }
  EXPECT_FALSE(ChunkKey::Parse(good + "x").ok());
  EXPECT_FALSE(ChunkKey::Parse(std::string(40, '\xff')).ok());
}

TEST(KvCodecName, RoundTripAndError) {
  for (const KvCodec codec : {KvCodec::kInt8, KvCodec::kF16, KvCodec::kF32, KvCodec::kInt4}) {
    EXPECT_EQ(*ParseKvCodec(KvCodecName(codec)), codec);
  }
  EXPECT_EQ(*ParseKvCodec("fp16"), KvCodec::kF16);
  EXPECT_NE(ParseKvCodec("int5").status().message().find("int8, int4, fp16 or fp32"),
            std::string::npos);
}

}  // namespace
}  // namespace kvasir
