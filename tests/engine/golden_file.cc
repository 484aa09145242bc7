#include "tests/engine/golden_file.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace kvasir::test {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::pair<int32_t, float>> ReadPairs(std::istringstream& words) {
  std::vector<std::pair<int32_t, float>> pairs;
  std::pair<int32_t, float> pair;
  char colon = 0;
  while (words >> pair.first >> colon >> pair.second) pairs.push_back(pair);
  return pairs;
}

}  // namespace

std::vector<GoldenPrompt> ReadGoldenFile(std::string_view name) {
  std::ifstream file(std::string(KVASIR_SOURCE_DIR) + "/tests/golden/" + std::string(name));
  EXPECT_TRUE(file.good()) << name;
  std::vector<GoldenPrompt> prompts;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "prompt") words >> prompts.emplace_back().name;
    if (kind == "ids") {
      for (int32_t id; words >> id;) prompts.back().ids.push_back(id);
    }
    if (kind == "top") prompts.back().top = ReadPairs(words);
    if (kind == "greedy") prompts.back().greedy = ReadPairs(words);
  }
  return prompts;
}

std::optional<std::string> FindModelFile(std::string_view name) {
  std::filesystem::path folder = Environment("KVASIR_MODEL_DIR");
  if (folder.empty()) {
    std::filesystem::path cache = Environment("XDG_CACHE_HOME");
    if (cache.empty()) cache = std::filesystem::path(Environment("HOME")) / ".cache";
    folder = cache / "kvasir" / "models";
  }
  const std::filesystem::path path = folder / name;
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path.string();
}

}  // namespace kvasir::test
