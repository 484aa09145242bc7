#include "engine/model/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "engine/model/checked_math.h"
#include "engine/model/safetensors_header.h"

namespace kvasir {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place");

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr uint64_t kLengthBytes = 8;

struct ElementType {
  std::string_view name;
  uint64_t bytes;
  std::optional<DType> dtype;
};

constexpr ElementType kElementTypes[] = {
    {"F32", 4, DType::kF32},   {"F16", 2, DType::kF16},  {"BF16", 2, DType::kBF16},
    {"I8", 1, DType::kI8},     {"F64", 8, std::nullopt}, {"I64", 8, std::nullopt},
    {"U64", 8, std::nullopt},  {"I32", 4, std::nullopt}, {"U32", 4, std::nullopt},
    {"I16", 2, std::nullopt},  {"U16", 2, std::nullopt}, {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},
};

const ElementType* FindType(std::string_view name) {
  const auto* found = std::find_if(std::begin(kElementTypes), std::end(kElementTypes),
                                   [&](const ElementType& type) { return type.name == name; });
  return found == std::end(kElementTypes) ? nullptr : found;
}

Result<SafetensorsTensor> CheckEntry(const SafetensorsEntry& entry,
                                     std::span<const std::byte> data) {
  const ElementType* type = FindType(entry.type);
  const std::string name = "tensor \"" + entry.name + "\": ";
  if (type == nullptr) {
    return Unimplemented(name + "element type " + entry.type +
                         "; supported are F64, F32, F16, BF16, I/U 8-64 and BOOL");
  }
  if (entry.end > data.size()) {
    return InvalidArgument(name + "ends at byte " + std::to_string(entry.end) + " of " +
                           std::to_string(data.size()) + " bytes of data");
  }
  const auto elements = CheckedProduct(entry.shape);
  const auto bytes = elements ? CheckedMultiply(*elements, type->bytes) : std::nullopt;
  if (!bytes || *bytes != entry.end - entry.begin) {
    return InvalidArgument(name + "shape and type do not give its " +
                           std::to_string(entry.end - entry.begin) + " bytes");
  }
  return SafetensorsTensor{entry.type, type->dtype, entry.shape,
                           data.subspan(entry.begin, entry.end - entry.begin)};
}

// The spans, sorted, must cover [0, size) without gap or overlap.
Status CheckCover(std::vector<SafetensorsEntry>& entries, uint64_t size) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != at) {
      return InvalidArgument("tensor \"" + entry.name + "\" begins at byte " +
                             std::to_string(entry.begin) + ", expected " + std::to_string(at));
    }
    at = entry.end;
  }
  return at == size ? Status::Ok()
                    : InvalidArgument("tensors end at byte " + std::to_string(at) + " of " +
                                      std::to_string(size) + " bytes of data");
}

Result<std::string_view> HeaderText(std::span<const std::byte> file) {
  if (file.size() < kLengthBytes) return InvalidArgument("too short for a safetensors file");
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMaxHeaderBytes || length > file.size() - kLengthBytes) {
    return InvalidArgument("header length " + std::to_string(length) + " does not fit a file of " +
                           std::to_string(file.size()) + " bytes (or is over 100 MB)");
  }
  return std::string_view(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
}

void WidenTo(const SafetensorsTensor& tensor, std::vector<float>* out) {
  if (*tensor.dtype == DType::kF32) {
    if (!out->empty()) std::memcpy(out->data(), tensor.data.data(), tensor.data.size());
    return;
  }
  for (size_t i = 0; i < out->size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.data.data() + 2 * i, sizeof bits);
    (*out)[i] = *tensor.dtype == DType::kF16 ? F16ToF32(bits) : BF16ToF32(bits);
  }
}

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t axis : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(axis);
  return text + "]";
}

Status WithPath(const std::string& path, const Status& status) {
  return {status.code(), path + ": " + status.message()};
}

}  // namespace

int64_t SafetensorsTensor::elements() const {
  return static_cast<int64_t>(CheckedProduct(shape).value_or(0));
}

Result<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  KVASIR_ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::Open(path));
  SafetensorsFile file(std::move(mapped));
  const auto bytes = file.file_.bytes();
  const Result<std::string_view> text = HeaderText(bytes);
  if (!text.ok()) return WithPath(path, text.status());
  Result<SafetensorsHeader> header = ParseSafetensorsHeader(*text);
  if (!header.ok()) return WithPath(path, header.status());

  const auto data = bytes.subspan(kLengthBytes + text->size());
  for (const SafetensorsEntry& entry : header->entries) {
    Result<SafetensorsTensor> tensor = CheckEntry(entry, data);
    if (!tensor.ok()) return WithPath(path, tensor.status());
    file.tensors_.emplace(entry.name, *std::move(tensor));
  }
  if (const Status status = CheckCover(header->entries, data.size()); !status.ok()) {
    return WithPath(path, status);
  }
  file.metadata_ = std::move(header->metadata);
  return file;
}

const SafetensorsTensor* SafetensorsFile::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Result<std::vector<float>> SafetensorsFile::ReadF32(std::string_view name,
                                                    std::span<const int64_t> shape) const {
  const std::string label = path() + ": tensor \"" + std::string(name) + "\"";
  const SafetensorsTensor* tensor = Find(name);
  if (tensor == nullptr) return NotFound(label + " is missing");
  if (!std::equal(shape.begin(), shape.end(), tensor->shape.begin(), tensor->shape.end())) {
    return InvalidArgument(label + " has shape " + ShapeText(tensor->shape) + ", expected " +
                           ShapeText(shape));
  }
  if (!tensor->dtype || *tensor->dtype == DType::kI8) {
    return Unimplemented(label + " has type " + tensor->type + "; supported are F32, F16, BF16");
  }
  std::vector<float> values(static_cast<size_t>(tensor->elements()));
  WidenTo(*tensor, &values);
  return values;
}

}  // namespace kvasir
