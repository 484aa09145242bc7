#include "engine/model/gguf.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/model/gguf_parse.h"

namespace kvasir {
namespace {

constexpr uint64_t kDefaultAlignment = 32;
constexpr int64_t kMaxAlignment = int64_t{1} << 20;

Result<uint64_t> AlignmentOf(const GgufFile& file) {
  constexpr std::string_view kKey = "general.alignment";
  if (!file.Has(kKey)) return kDefaultAlignment;
  KVASIR_ASSIGN_OR_RETURN(const int64_t value, file.Integer(kKey, 8, kMaxAlignment));
  if ((value & (value - 1)) != 0) {
    return InvalidArgument(file.path() + ": general.alignment is " + std::to_string(value) +
                           ", no power of two");
  }
  return static_cast<uint64_t>(value);
}

// An integer value as int64; false if it is none or does not fit.
bool AsInt64(const GgufValue& value, int64_t* out) {
  if (const auto* number = std::get_if<int64_t>(&value.value)) {
    *out = *number;
    return true;
  }
  const auto* number = std::get_if<uint64_t>(&value.value);
  if (number == nullptr) return false;
  *out = static_cast<int64_t>(
      std::min(*number, static_cast<uint64_t>(std::numeric_limits<int64_t>::max())));
  return true;
}

template <typename T>
std::vector<T> CopyArray(const GgufArray& array) {
  std::vector<T> values(array.count);
  if (!values.empty()) std::memcpy(values.data(), array.data.data(), array.count * sizeof(T));
  return values;
}

}  // namespace

std::string_view GgufTypeName(GgufType type) {
  static constexpr std::array<std::string_view, 13> kNames = {
      "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
      "bool",  "string", "array",  "uint64", "int64",  "float64"};
  const auto index = static_cast<size_t>(type);
  return index < kNames.size() ? kNames[index] : "unknown type";
}

Result<GgufFile> GgufFile::Open(const std::string& path) {
  KVASIR_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  GgufFile file(std::move(mapped));
  if (const Status status = file.Parse(); !status.ok()) {
    const bool named = status.message().starts_with(path);
    return Status(status.code(), (named ? "" : path + ": ") + status.message());
  }
  return file;
}

Status GgufFile::Parse() {
  ByteCursor cursor(bytes());
  KVASIR_ASSIGN_OR_RETURN(const GgufCounts counts, ParseGgufHeader(cursor));
  for (uint64_t i = 0; i < counts.values; ++i) {
    std::string key;
    GgufValue value;
    KVASIR_RETURN_IF_ERROR(ParseGgufPair(cursor, &key, &value));
    if (!values_.emplace(key, value).second) {
      return InvalidArgument("metadata \"" + key + "\" appears twice");
    }
  }
  std::vector<GgufTensorInfo> infos;
  for (uint64_t i = 0; i < counts.tensors; ++i) {
    KVASIR_ASSIGN_OR_RETURN(GgufTensorInfo info, ParseGgufTensorInfo(cursor));
    infos.push_back(std::move(info));
  }
  KVASIR_ASSIGN_OR_RETURN(const uint64_t alignment, AlignmentOf(*this));
  const uint64_t pad = (alignment - cursor.position() % alignment) % alignment;
  const uint64_t data_begin = std::min<uint64_t>(cursor.position() + pad, bytes().size());
  const auto data = bytes().subspan(data_begin);
  KVASIR_RETURN_IF_ERROR(CheckGgufPlacement(infos, data.size(), alignment));
  for (GgufTensorInfo& info : infos) {
    const auto span = data.subspan(info.offset, info.bytes);
    std::string name = info.name;
    GgufTensor tensor{std::move(info.name), info.dtype, std::move(info.dims), span};
    if (!tensors_.emplace(name, std::move(tensor)).second) {
      return InvalidArgument("tensor \"" + name + "\" appears twice");
    }
  }
  return Status::Ok();
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Status GgufFile::Absent(std::string_view key) const {
  return NotFound(path() + ": metadata \"" + std::string(key) + "\" is missing");
}

Status GgufFile::WrongType(std::string_view key, const GgufValue& value,
                           std::string_view wanted) const {
  std::string found(GgufTypeName(value.type));
  if (const auto* array = std::get_if<GgufArray>(&value.value)) {
    found += " of " + std::string(GgufTypeName(array->element));
  }
  return InvalidArgument(path() + ": metadata \"" + std::string(key) + "\" is " + found +
                         ", expected " + std::string(wanted));
}

Result<int64_t> GgufFile::Integer(std::string_view key, int64_t low, int64_t high) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  int64_t number = 0;
  if (!AsInt64(*value, &number)) return WrongType(key, *value, "an integer");
  if (number < low || number > high) {
    return InvalidArgument(path() + ": metadata \"" + std::string(key) + "\" is " +
                           std::to_string(number) + ", outside " + std::to_string(low) + " to " +
                           std::to_string(high));
  }
  return number;
}

Result<double> GgufFile::Real(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* number = std::get_if<double>(&value->value);
  if (number == nullptr) return WrongType(key, *value, "a float");
  if (!std::isfinite(*number)) {
    return InvalidArgument(path() + ": metadata \"" + std::string(key) + "\" is not finite");
  }
  return *number;
}

Result<bool> GgufFile::Bool(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* flag = std::get_if<bool>(&value->value);
  if (flag == nullptr) return WrongType(key, *value, "a bool");
  return *flag;
}

Result<std::string> GgufFile::String(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* text = std::get_if<std::string_view>(&value->value);
  if (text == nullptr) return WrongType(key, *value, "a string");
  return std::string(*text);
}

Result<GgufArray> GgufFile::Array(std::string_view key, std::string_view wanted) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return Absent(key);
  const auto* array = std::get_if<GgufArray>(&value->value);
  if (array == nullptr) return WrongType(key, *value, wanted);
  return *array;
}

Result<std::vector<std::string>> GgufFile::Strings(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of strings";
  KVASIR_ASSIGN_OR_RETURN(const GgufArray array, Array(key, kWanted));
  if (array.element != GgufType::kString) return WrongType(key, *Find(key), kWanted);
  ByteCursor cursor(array.data);
  std::vector<std::string> values;
  values.reserve(array.count);  // each was walked at Open: 8 bytes of file at least
  for (uint64_t i = 0; i < array.count; ++i) values.emplace_back(*cursor.ReadString());
  return values;
}

Result<std::vector<float>> GgufFile::Floats(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of float32";
  KVASIR_ASSIGN_OR_RETURN(const GgufArray array, Array(key, kWanted));
  if (array.element != GgufType::kFloat32) return WrongType(key, *Find(key), kWanted);
  return CopyArray<float>(array);
}

Result<std::vector<int32_t>> GgufFile::Integers(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of int32";
  KVASIR_ASSIGN_OR_RETURN(const GgufArray array, Array(key, kWanted));
  if (array.element != GgufType::kInt32 && array.element != GgufType::kUint32) {
    return WrongType(key, *Find(key), kWanted);
  }
  return CopyArray<int32_t>(array);
}

}  // namespace kvasir
