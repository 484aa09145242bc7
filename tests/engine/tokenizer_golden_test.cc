// Ids equal those of Hugging Face `tokenizers` (or sentencepiece, for the small scored vocabulary):
// see tests/golden/tokenizer_oracle.py.
#include "tests/engine/tokenizer_golden.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace kvasir::test {
namespace {

class TokenizerGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    encode_ = EncoderFor(GetParam());
    if (!encode_ && !HasFailure()) GTEST_SKIP() << "skipped: model of " << GetParam() << " missing";
  }

  TokenIds Encode(const std::string& text) const {
    auto ids = encode_(text);
    EXPECT_TRUE(ids.ok()) << ids.status().ToString();
    return ids.ok() ? *ids : TokenIds();
  }

  // Compares with "oracle set texts ids digest".
  void ExpectDigest(const std::string& set, const std::vector<std::string>& texts) const {
    std::vector<TokenIds> all;
    size_t count = 0;
    for (const std::string& text : texts) count += all.emplace_back(Encode(text)).size();
    for (const std::string& line : GoldenLines("tokenizer_digests.txt")) {
      const std::vector<std::string> fields = Fields(line);
      if (fields[0] != GetParam() || fields[1] != set) continue;
      EXPECT_EQ(texts.size(), std::stoul(fields[2]));
      EXPECT_EQ(count, std::stoul(fields[3]));
      EXPECT_EQ(DigestOfIds(all), std::stoull(fields[4], nullptr, 16));
      return;
    }
    ADD_FAILURE() << "no golden digest for " << set;
  }

  Encoder encode_;
};

TEST_P(TokenizerGolden, SnippetsGiveTheSameIds) {
  size_t compared = 0;
  for (const std::string& line : GoldenLines("tokenizer_ids.txt")) {
    const std::vector<std::string> fields = Fields(line);
    if (fields[0] != GetParam()) continue;
    TokenIds wanted;
    for (size_t i = 2; i < fields.size(); ++i) wanted.push_back(std::stoi(fields[i]));
    EXPECT_EQ(Encode(FromHex(fields[1])), wanted) << "text " << fields[1];
    ++compared;
  }
  EXPECT_GE(compared, 200u);
}

TEST_P(TokenizerGolden, OneMegabyteOfRandomTextGivesTheSameIds) {
  ExpectDigest("random", RandomTexts());
}

TEST_P(TokenizerGolden, XquadAndNaughtyStringsNeedsDataFolder) {
  const char* folder = std::getenv("KVASIR_DATA_DIR");
  if (folder == nullptr) GTEST_SKIP() << "skipped: KVASIR_DATA_DIR is not set";
  const std::string data = folder;
  ExpectDigest("xquad", JsonStrings(data + "/xquad.en.json", {"context", "question"}));
  ExpectDigest("blns", JsonStrings(data + "/blns.json", {}));
}

INSTANTIATE_TEST_SUITE_P(Oracles, TokenizerGolden, testing::ValuesIn(OracleNames()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace kvasir::test
