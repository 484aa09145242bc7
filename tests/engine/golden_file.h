// Golden files (tests/golden/make_golden.py) and the real models they were made from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir::test {

struct GoldenPrompt {
  std::string name;
  std::vector<int32_t> ids;
  std::vector<std::pair<int32_t, float>> top;     // (id, logit), largest first
  std::vector<std::pair<int32_t, float>> greedy;  // (token, largest minus second largest logit)
};

// The prompts of tests/golden/<name>; fails the test if the file cannot be read.
std::vector<GoldenPrompt> ReadGoldenFile(std::string_view name);

// The path of a model file, looked for in $KVASIR_MODEL_DIR or else the user's cache folder.
std::optional<std::string> FindModelFile(std::string_view name);

}  // namespace kvasir::test
