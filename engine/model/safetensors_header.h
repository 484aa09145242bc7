// The header of a safetensors file: a JSON object of one fixed form. A strict scanner for just that
// form, since engine/ has no JSON library and hostile files no claim to more.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

struct SafetensorsEntry {
  std::string name;
  std::string type;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes into the data section
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;        // names are unique
  std::map<std::string, std::string> metadata;  // "__metadata__"
};

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}, each field exactly
// once in any order, shapes of 8 axes at most. Messages give the byte where the header is wrong.
Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json);

}  // namespace kvasir
