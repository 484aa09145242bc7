// Reads the golden files that tests/golden/tokenizer_oracle.py writes, and makes the texts that
// its digests are taken over.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/wordpiece.h"

namespace kvasir::test {

using TokenIds = std::vector<int32_t>;

std::vector<std::string> GoldenLines(const std::string& file);  // in tests/golden/
std::vector<std::string> Fields(const std::string& line);       // between single spaces
std::string FromHex(const std::string& hex);                    // "-" is the empty text
VocabularyData SmallVocabulary(const std::string& name);        // tokenizer_small_<name>.txt
std::vector<std::string> RandomTexts();                         // 256 of 4 KiB each
uint64_t DigestOfIds(const std::vector<TokenIds>& lists);

// An encoder under test by the oracle's name ("smollm2", "gemma3", "minilm", "small-..."); empty
// if its model file is not on this machine.
using Encoder = std::function<Result<TokenIds>(const std::string&)>;
Encoder EncoderFor(const std::string& oracle);
std::vector<std::string> OracleNames();

// The vocabulary of a GGUF file in the models' folder; no tokens if it is not there.
VocabularyData GgufVocabulary(const std::string& file);

// The strings of a JSON file in the order of the file: values of the keys, or all if there are
// no keys.
std::vector<std::string> JsonStrings(const std::string& path, const std::vector<std::string>& keys);

}  // namespace kvasir::test
