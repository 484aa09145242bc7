#include "engine/tokenizer/wordpiece.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace kvasir {
namespace {

using Ids = std::vector<int32_t>;

std::unique_ptr<WordPieceTokenizer> Make() {
  auto made = WordPieceTokenizer::FromTokens({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff",
                                              "##able", "cafe", ",", "\u4f60", "##\u4f60", "a"});
  EXPECT_TRUE(made.ok());
  return std::move(*made);
}

Ids Encode(const std::string& text, int32_t max_tokens = 100) {
  auto ids = Make()->Encode(text, max_tokens);
  EXPECT_TRUE(ids.ok()) << ids.status().ToString();
  return ids.ok() ? *ids : Ids();
}

TEST(WordPiece, ByHand) {
  EXPECT_EQ(Encode(""), (Ids{2, 3}));
  EXPECT_EQ(Encode("unaffable"), (Ids{2, 4, 5, 6, 3}));
  EXPECT_EQ(Encode("UnAffable,un"), (Ids{2, 4, 5, 6, 8, 4, 3}));
  EXPECT_EQ(Encode("Caf\u00e9 cafe\u0301"), (Ids{2, 7, 7, 3}));
  EXPECT_EQ(Encode("a\u4f60\u4f60"), (Ids{2, 11, 9, 9, 3}));  // ideographs stand alone
  EXPECT_EQ(Encode("unx"), (Ids{2, 1, 3}));                   // no match: the whole word
  EXPECT_EQ(Encode(std::string("u\0n", 3)), (Ids{2, 4, 3}));  // NUL vanishes
  EXPECT_EQ(Encode("[CLS]"), (Ids{2, 1, 1, 1, 3}));
}

TEST(WordPiece, LongWordsAreUnknown) {
  std::vector<std::string> tokens = {"[UNK]", "[CLS]", "[SEP]", "x", "##x"};
  const auto made = WordPieceTokenizer::FromTokens(tokens);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)->Encode(std::string(100, 'x'), 1000)->size(), 102u);
  EXPECT_EQ((*made)->Encode(std::string(101, 'x'), 1000).value(), (Ids{1, 0, 2}));
}

TEST(WordPiece, CutsToTheLimit) {
  for (int32_t limit = 2; limit < 9; ++limit) {
    const Ids ids = Encode("a a , unaffable", limit);
    EXPECT_EQ(ids.size(), static_cast<size_t>(std::min(limit, 8)));
    EXPECT_EQ(ids.front(), 2);
    EXPECT_EQ(ids.back(), 3);
  }
}

TEST(WordPiece, BadInput) {
  EXPECT_EQ(Make()->Encode("a", 1).status().code(), StatusCode::kInvalidArgument);
  const Status status = Make()->Encode("ab\xFF", 9).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("byte 2"), std::string::npos);
  EXPECT_EQ(WordPieceTokenizer::FromTokens({"a", "[CLS]"}).status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(WordPieceTokenizer::Load("/nowhere/vocab.txt").status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(WordPieceTokenizer::Load("/").ok());
}

TEST(WordPiece, LoadsLines) {
  const auto path =
      std::filesystem::temp_directory_path() / ("kvasir_vocab_" + std::to_string(getpid()));
  std::ofstream(path) << "[PAD]\r\n[UNK]\n[CLS]\n[SEP]\nhi\n";
  const auto made = WordPieceTokenizer::Load(path.string());
  std::filesystem::remove(path);
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_EQ((*made)->VocabularySize(), 5);
  EXPECT_EQ((*made)->padding_id(), 0);
  EXPECT_EQ((*made)->Encode("Hi", 8).value(), (Ids{2, 4, 3}));
}

}  // namespace
}  // namespace kvasir
