// The three parts of a GGUF file's head, each parsed on its own. Messages name the field, not the
// file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/byte_cursor.h"
#include "engine/model/gguf.h"

namespace kvasir {

struct GgufCounts {
  uint64_t tensors = 0;
  uint64_t values = 0;
};

// A tensor's row of the table, before its place in the file is known to be good.
struct GgufTensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;
  uint64_t bytes = 0;   // dims x dtype
  uint64_t offset = 0;  // into the data section
};

// Magic, version, counts; the counts fit the rest of the file.
Result<GgufCounts> ParseGgufHeader(ByteCursor& cursor);
// One key and its value.
Status ParseGgufPair(ByteCursor& cursor, std::string* key, GgufValue* value);
Result<GgufTensorInfo> ParseGgufTensorInfo(ByteCursor& cursor);
// Every span lies in the data section of `data_bytes` bytes, aligned, none over another.
Status CheckGgufPlacement(const std::vector<GgufTensorInfo>& infos, uint64_t data_bytes,
                          uint64_t alignment);

}  // namespace kvasir
