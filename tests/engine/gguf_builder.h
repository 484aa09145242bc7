// GgufBuilder: writes GGUF files for tests, right ones and, on demand, wrong ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/gguf.h"
#include "kernels/core/dtype.h"

namespace kvasir::test {

// Appends the bytes of a plain value.
template <typename T>
void AppendRaw(std::string* out, const T& value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}
void AppendString(std::string* out, std::string_view text);  // u64 length, bytes

uint32_t GgufTypeCode(DType dtype);

class GgufBuilder {
 public:
  // ---- metadata -----------------------------------------------------------------------------
  template <typename T>
  void Scalar(std::string_view key, GgufType type, const T& value) {
    std::string raw;
    AppendRaw(&raw, value);
    Pair(key, type, raw);
  }
  void Uint32(std::string_view key, uint32_t value) { Scalar(key, GgufType::kUint32, value); }
  void Float(std::string_view key, float value) { Scalar(key, GgufType::kFloat32, value); }
  void Bool(std::string_view key, bool value) {
    Scalar(key, GgufType::kBool, static_cast<uint8_t>(value));
  }
  void String(std::string_view key, std::string_view value);
  void Strings(std::string_view key, const std::vector<std::string>& values);
  template <typename T>
  void Array(std::string_view key, GgufType element, const std::vector<T>& values) {
    std::string raw;
    for (const T& value : values) AppendRaw(&raw, value);
    RawArray(key, element, values.size(), raw);
  }
  // An array whose count and bytes need not agree.
  void RawArray(std::string_view key, GgufType element, uint64_t count, std::string_view raw);
  // A key that is there already is replaced, unless `duplicate`.
  void Pair(std::string_view key, GgufType type, std::string_view raw, bool duplicate = false);

  // ---- tensors ------------------------------------------------------------------------------
  // dims innermost first; data of the size that dims and dtype ask for.
  void Tensor(std::string_view name, DType dtype, const std::vector<int64_t>& dims,
              std::string_view data);
  // A table row as given, without data.
  void RawTensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                 uint64_t offset);

  // ---- the file -----------------------------------------------------------------------------
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data; written as metadata only by the caller
  int64_t extra_tensors = 0, extra_pairs = 0;  // added to the counts in the header

  std::string Bytes() const;

 private:
  struct Row {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t type;
    uint64_t offset;
  };
  std::vector<std::pair<std::string, std::string>> pairs_;  // key, bytes behind it
  std::vector<Row> rows_;
  std::string data_;
};

// Writes `bytes` into a fresh file of the test's temporary folder and returns its path;
// it is removed when the process ends.
std::string WriteTempFile(std::string_view name, std::string_view bytes);

}  // namespace kvasir::test
