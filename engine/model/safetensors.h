// SafetensorsFile: named tensors of a .safetensors file, checked and mapped.
//
// Immutable after Open; readable from any thread. Spans and views die with it. Checked before
// anything is allocated by a number out of the file: header length (100 MB at most, inside the
// file), strict header grammar, known element types, shape x element size = span, spans that
// cover the data section without gap or overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/mapped_file.h"
#include "kernels/core/dtype.h"
#include "kernels/core/status.h"

namespace kvasir {

struct SafetensorsTensor {
  std::string type;            // as written: "F32", "I64", ...
  std::optional<DType> dtype;  // the same, if Kvasir computes with it: F32, F16, BF16, I8
  std::vector<int64_t> shape;  // outermost first; empty = a scalar
  // Little-endian, row-major, *no* alignment promised: read it through ReadF32 or memcpy.
  std::span<const std::byte> data;

  int64_t elements() const;
};

class SafetensorsFile {
 public:
  // kNotFound, kInvalidArgument (what is wrong and where), kUnimplemented (an element type).
  static Result<SafetensorsFile> Open(const std::string& path);

  const SafetensorsTensor* Find(std::string_view name) const;  // null = no such tensor
  // The tensor's values widened to fp32. kNotFound; kInvalidArgument if the shape is another;
  // kUnimplemented if it is not F32, F16 or BF16.
  Result<std::vector<float>> ReadF32(std::string_view name, std::span<const int64_t> shape) const;

  const std::map<std::string, SafetensorsTensor, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return file_.path(); }

 private:
  explicit SafetensorsFile(MappedFile file) : file_(std::move(file)) {}

  MappedFile file_;
  std::map<std::string, SafetensorsTensor, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace kvasir
