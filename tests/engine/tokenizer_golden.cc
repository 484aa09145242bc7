#include "tests/engine/tokenizer_golden.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <sstream>
#include <utility>

#include "engine/model/gguf.h"
#include "engine/model/model_config_gguf.h"
#include "engine/tokenizer/utf8.h"
#include "tests/engine/golden_file.h"

namespace kvasir::test {
namespace {

void ReadSetting(const std::vector<std::string>& fields, VocabularyData* v) {
  if (fields[1] == "model") v->model = fields[2];
  if (fields[1] == "unknown") v->unknown = std::stoi(fields[2]);
  if (fields[1] == "bos") v->bos = std::stoi(fields[2]);
  if (fields[1] == "eos") v->eos = std::stoi(fields[2]);
}

Encoder FromTokenizer(const VocabularyData& vocabulary) {
  auto made = MakeTokenizer(vocabulary);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  if (!made.ok()) return {};
  return [shared = std::shared_ptr<Tokenizer>(std::move(*made))](const std::string& text) {
    return shared->Encode(text);
  };
}

Encoder FromWordPiece() {
  const auto path = FindModelFile("all-MiniLM-L6-v2/vocab.txt");
  if (!path) return {};
  auto made = WordPieceTokenizer::Load(*path);
  EXPECT_TRUE(made.ok()) << made.status().ToString();
  if (!made.ok()) return {};
  return [shared = std::shared_ptr<WordPieceTokenizer>(std::move(*made))](const std::string& text) {
    return shared->Encode(text, 1 << 30);
  };
}

Encoder FromModelFile(const std::string& file) {
  const VocabularyData vocabulary = GgufVocabulary(file);
  return vocabulary.tokens.empty() ? Encoder() : FromTokenizer(vocabulary);
}

uint32_t ReadHex4(const std::string& text, size_t at) {
  return static_cast<uint32_t>(std::stoul(text.substr(at, 4), nullptr, 16));
}

// Appends the character of the escape whose letter is text[*at]; moves *at to its last byte.
void AppendEscape(const std::string& text, size_t* at, std::string* out) {
  constexpr std::string_view kLetters = "bfnrt", kBytes = "\b\f\n\r\t";
  const size_t letter = kLetters.find(text[*at]);
  if (letter != std::string_view::npos) return out->push_back(kBytes[letter]);
  if (text[*at] != 'u') return out->push_back(text[*at]);
  char32_t c = ReadHex4(text, *at + 1);
  *at += 4;
  if (c >= 0xD800 && c < 0xDC00) {
    c = 0x10000 + ((c - 0xD800) << 10) + (ReadHex4(text, *at + 3) - 0xDC00);
    *at += 6;
  }
  AppendUtf8(c, out);
}

// The JSON string whose opening quote is at text[*at]; moves *at behind the closing one.
std::string ReadString(const std::string& text, size_t* at) {
  std::string out;
  for (++*at; text[*at] != '"'; ++*at) {
    if (text[*at] == '\\') {
      ++*at;
      AppendEscape(text, at, &out);
    } else {
      out.push_back(text[*at]);
    }
  }
  ++*at;
  return out;
}

class Generator {
 public:
  uint64_t Draw(uint64_t n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return (state_ >> 33) % n;
  }
  char32_t Character() {
    constexpr std::array<char32_t, 8> kSpaces = {32, 10, 9, 13, 39, 48, 0x3000, 0xA0};
    constexpr std::array<uint64_t, 4> kRanges = {0x80, 0x800, 0x10000, 0x110000};
    const uint64_t kind = Draw(8);
    if (kind < 3) return static_cast<char32_t>(32 + Draw(95));
    if (kind < 4) return kSpaces[Draw(8)];
    return static_cast<char32_t>(Draw(kRanges[kind - 4]));
  }

 private:
  uint64_t state_ = 1;
};

}  // namespace

std::vector<std::string> GoldenLines(const std::string& file) {
  std::ifstream in(std::string(KVASIR_SOURCE_DIR) + "/tests/golden/" + file);
  EXPECT_TRUE(in) << file;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> Fields(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> fields;
  for (std::string field; in >> field;) fields.push_back(field);
  return fields;
}

std::string FromHex(const std::string& hex) {
  std::string text;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    text.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return text;
}

VocabularyData SmallVocabulary(const std::string& name) {
  VocabularyData v;
  for (const std::string& line : GoldenLines("tokenizer_small_" + name + ".txt")) {
    const std::vector<std::string> fields = Fields(line);
    if (fields[0] == "S") ReadSetting(fields, &v);
    if (fields[0] == "M") v.merges.push_back(FromHex(fields[1]));
    if (fields[0] != "T") continue;
    v.types.push_back(std::stoi(fields[1]));
    v.scores.push_back(std::stof(fields[2]));
    v.tokens.push_back(FromHex(fields[3]));
  }
  return v;
}

VocabularyData GgufVocabulary(const std::string& file) {
  const auto path = FindModelFile(file);
  if (!path) return {};
  auto opened = GgufFile::Open(*path);
  EXPECT_TRUE(opened.ok()) << opened.status().ToString();
  if (!opened.ok()) return {};
  auto vocabulary = ReadVocabulary(*opened);
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status().ToString();
  return vocabulary.ok() ? *vocabulary : VocabularyData();
}

std::vector<std::string> RandomTexts() {
  Generator generator;
  std::vector<std::string> texts(256);
  for (std::string& text : texts) {
    while (text.size() < 4096) {
      const char32_t c = generator.Character();
      if (c < 0xD800 || c >= 0xE000) AppendUtf8(c, &text);
    }
  }
  return texts;
}

uint64_t DigestOfIds(const std::vector<TokenIds>& lists) {
  uint64_t hash = 0xCBF29CE484222325u;
  const auto mix = [&hash](uint64_t value) { hash = (hash ^ value) * 0x100000001B3u; };
  for (const TokenIds& ids : lists) {
    mix(ids.size());
    for (const int32_t id : ids) mix(static_cast<uint64_t>(id));
  }
  return hash;
}

std::vector<std::string> OracleNames() {
  return {"smollm2",         "gemma3",      "minilm",       "small-gpt-2",  "small-smollm",
          "small-llama-bpe", "small-qwen2", "small-scored", "small-unigram"};
}

Encoder EncoderFor(const std::string& oracle) {
  if (oracle == "smollm2") return FromModelFile("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (oracle == "gemma3") return FromModelFile("gemma-3-270m-q4_k_m.gguf");
  if (oracle == "minilm") return FromWordPiece();
  const std::string name = oracle.substr(6);  // behind "small-"
  if (name == "scored" || name == "unigram") return FromTokenizer(SmallVocabulary(name));
  VocabularyData vocabulary = SmallVocabulary("bpe");
  vocabulary.pre = name;
  return FromTokenizer(vocabulary);
}

std::vector<std::string> JsonStrings(const std::string& path,
                                     const std::vector<std::string>& keys) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::stringstream all;
  all << in.rdbuf();
  const std::string text = all.str();
  std::vector<std::string> found;
  std::string key;  // the last key read
  for (size_t at = text.find('"'); at != std::string::npos; at = text.find('"', at)) {
    std::string value = ReadString(text, &at);
    const bool is_key = text.find_first_not_of(" \n\t", at) == text.find(':', at);
    if (is_key) key = value;
    bool wanted = keys.empty();
    for (const std::string& name : keys) wanted |= name == key;
    if (wanted && !is_key) found.push_back(std::move(value));
  }
  return found;
}

}  // namespace kvasir::test
