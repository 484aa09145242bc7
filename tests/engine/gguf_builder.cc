#include "tests/engine/gguf_builder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <mutex>

namespace kvasir::test {

void AppendString(std::string* out, std::string_view text) {
  AppendRaw(out, static_cast<uint64_t>(text.size()));
  out->append(text);
}

uint32_t GgufTypeCode(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ5_0:
      return 6;
    case DType::kQ5_1:
      return 7;
    case DType::kQ8_0:
      return 8;
    case DType::kQ4_K:
      return 12;
    case DType::kQ5_K:
      return 13;
    case DType::kQ6_K:
      return 14;
    case DType::kI8:
      return 24;
    case DType::kBF16:
      return 30;
    case DType::kI4:
      break;  // stored KV alone: no file's type
  }
  return 0;
}

void GgufBuilder::Pair(std::string_view key, GgufType type, std::string_view raw, bool duplicate) {
  std::string value;
  AppendRaw(&value, static_cast<uint32_t>(type));
  value.append(raw);
  for (auto& [name, bytes] : pairs_) {
    if (name != key || duplicate) continue;
    bytes = value;
    return;
  }
  pairs_.emplace_back(key, value);
}

void GgufBuilder::String(std::string_view key, std::string_view value) {
  std::string raw;
  AppendString(&raw, value);
  Pair(key, GgufType::kString, raw);
}

void GgufBuilder::Strings(std::string_view key, const std::vector<std::string>& values) {
  std::string raw;
  for (const std::string& value : values) AppendString(&raw, value);
  RawArray(key, GgufType::kString, values.size(), raw);
}

void GgufBuilder::RawArray(std::string_view key, GgufType element, uint64_t count,
                           std::string_view raw) {
  std::string value;
  AppendRaw(&value, static_cast<uint32_t>(element));
  AppendRaw(&value, count);
  value.append(raw);
  Pair(key, GgufType::kArray, value);
}

void GgufBuilder::Tensor(std::string_view name, DType dtype, const std::vector<int64_t>& dims,
                         std::string_view data) {
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  rows_.push_back(
      {std::string(name), {dims.begin(), dims.end()}, GgufTypeCode(dtype), data_.size()});
  data_.append(data);
}

void GgufBuilder::RawTensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                            uint64_t offset) {
  rows_.push_back({std::string(name), dims, type, offset});
}

std::string GgufBuilder::Bytes() const {
  std::string out = "GGUF";
  AppendRaw(&out, version);
  AppendRaw(&out, rows_.size() + static_cast<uint64_t>(extra_tensors));
  AppendRaw(&out, pairs_.size() + static_cast<uint64_t>(extra_pairs));
  for (const auto& [key, value] : pairs_) {
    AppendString(&out, key);
    out.append(value);
  }
  for (const Row& row : rows_) {
    AppendString(&out, row.name);
    AppendRaw(&out, static_cast<uint32_t>(row.dims.size()));
    for (const uint64_t dim : row.dims) AppendRaw(&out, dim);
    AppendRaw(&out, row.type);
    AppendRaw(&out, row.offset);
  }
  if (alignment > 0) out.resize((out.size() + alignment - 1) / alignment * alignment);
  return out + data_;
}

namespace {

// Files of this process, removed when it ends.
struct TempFiles {
  std::mutex mutex;
  std::vector<std::string> paths;
  ~TempFiles() {
    for (const std::string& path : paths) std::remove(path.c_str());
  }
};

}  // namespace

std::string WriteTempFile(std::string_view name, std::string_view bytes) {
  static TempFiles files;
  const std::lock_guard lock(files.mutex);
  const std::string path = ::testing::TempDir() + "kvasir-" + std::to_string(getpid()) + "-" +
                           std::to_string(files.paths.size()) + "-" + std::string(name);
  files.paths.push_back(path);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  EXPECT_TRUE(file.good()) << path;
  return path;
}

}  // namespace kvasir::test
