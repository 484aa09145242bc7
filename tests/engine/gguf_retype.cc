#include "tests/engine/gguf_retype.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"
#include "kernels/core/status.h"
#include "tests/engine/gguf_builder.h"

namespace kvasir::test {
namespace {

constexpr size_t kHeaderBytes = 24;  // magic, version, two counts
constexpr size_t kAlignment = 32;    // of tensors, unless the metadata says otherwise

// Name and shape as a tensor table begins a row.
std::string RowHead(const GgufTensor& tensor) {
  std::string row;
  AppendString(&row, tensor.name);
  AppendRaw(&row, static_cast<uint32_t>(tensor.dims.size()));
  for (const int64_t dim : tensor.dims) AppendRaw(&row, static_cast<uint64_t>(dim));
  return row;
}

std::string_view BytesOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Everything before the tensor table, which begins with whichever tensor comes first.
std::string_view Metadata(const GgufFile& file) {
  const std::string_view all = BytesOf(file.bytes());
  size_t end = all.size();
  for (const auto& [name, tensor] : file.tensors()) end = std::min(end, all.find(RowHead(tensor)));
  return all.substr(0, end);
}

std::string Rounded(const GgufTensor& tensor, DType dtype) {
  std::vector<float> values(static_cast<size_t>(tensor.inputs() * tensor.outputs()));
  DequantizeRow(tensor.dtype, tensor.data.data(), values.size(), values.data());
  std::string data;
  data.reserve(2 * values.size());
  for (const float value : values) {
    AppendRaw(&data, dtype == DType::kF16 ? F32ToF16(value) : F32ToBF16(value));
  }
  return data;
}

void Align(std::string* bytes) {
  bytes->resize((bytes->size() + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace

std::string RetypeGguf(const std::string& path, DType dtype) {
  KVASIR_CHECK(dtype == DType::kF16 || dtype == DType::kBF16);
  const auto file = GgufFile::Open(path);
  KVASIR_CHECK(file.ok() && !file->Has("general.alignment"));
  std::string out(Metadata(*file)), data;
  KVASIR_CHECK(out.size() > kHeaderBytes);
  for (const auto& [name, tensor] : file->tensors()) {
    const bool matrix = tensor.dims.size() == 2;
    out += RowHead(tensor);
    AppendRaw(&out, GgufTypeCode(matrix ? dtype : tensor.dtype));
    AppendRaw(&out, static_cast<uint64_t>(data.size()));
    data += matrix ? Rounded(tensor, dtype) : std::string(BytesOf(tensor.data));
    Align(&data);
  }
  Align(&out);
  return WriteTempFile("retyped.gguf", out + data);
}

}  // namespace kvasir::test
