// GgufFile: metadata and tensor table of a GGUF file (v2, v3, little-endian), mapped and checked.
//
// Immutable after Open; readable from any thread. Views into it die with it. Every count, length,
// dimension and offset is checked against the file's own length before it is used or allocated
// by; memory is proportional to the number of keys and tensors that are really in the file.
// Limits: 4 dimensions, 1 MiB a key or tensor name, no nested arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/model/mapped_file.h"
#include "kernels/core/dtype.h"
#include "kernels/core/status.h"

namespace kvasir {

// Numbers as in the file.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
std::string_view GgufTypeName(GgufType type);

// `count` elements; strings lie as (u64 length, bytes) and were walked once at Open.
struct GgufArray {
  GgufType element = GgufType::kUint8;
  uint64_t count = 0;
  std::span<const std::byte> data;
};

struct GgufValue {
  GgufType type = GgufType::kUint8;
  std::variant<uint64_t, int64_t, double, bool, std::string_view, GgufArray> value;
};

struct GgufTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;  // innermost (K) first, as in the file; 1 to 4
  std::span<const std::byte> data;

  int64_t inputs() const { return dims[0]; }                         // K
  int64_t outputs() const { return dims.size() > 1 ? dims[1] : 1; }  // N
  bool IsMatrix(int64_t n, int64_t k) const {
    return dims.size() == 2 && dims[0] == k && dims[1] == n;
  }
  bool IsVector(int64_t n) const { return dims.size() == 1 && dims[0] == n; }
};

class GgufFile {
 public:
  // Messages begin with the path and name the field. kUnimplemented: a version, tensor type or
  // value kind that is known but not supported; kInvalidArgument: not a GGUF file, or damaged.
  static Result<GgufFile> Open(const std::string& path);

  // ---- metadata: kNotFound if the key is absent, kInvalidArgument if it has another type --------
  const GgufValue* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  // Any integer type, within [low, high].
  Result<int64_t> Integer(std::string_view key, int64_t low, int64_t high) const;
  Result<double> Real(std::string_view key) const;  // float32 or float64, finite
  Result<bool> Bool(std::string_view key) const;
  Result<std::string> String(std::string_view key) const;
  Result<std::vector<std::string>> Strings(std::string_view key) const;
  Result<std::vector<float>> Floats(std::string_view key) const;      // float32 elements
  Result<std::vector<int32_t>> Integers(std::string_view key) const;  // int32 or uint32 elements

  // ---- tensors ----------------------------------------------------------------------------------
  const GgufTensor* FindTensor(std::string_view name) const;
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  std::span<const std::byte> bytes() const { return file_.bytes(); }  // the whole file
  const std::string& path() const { return file_.path(); }

 private:
  explicit GgufFile(MappedFile file) : file_(std::move(file)) {}
  Status Parse();
  Status WrongType(std::string_view key, const GgufValue& value, std::string_view wanted) const;
  Status Absent(std::string_view key) const;
  Result<GgufArray> Array(std::string_view key, std::string_view wanted) const;

  MappedFile file_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace kvasir
