#include "engine/model/gguf_parse.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <optional>
#include <utility>

#include "engine/model/checked_math.h"

namespace kvasir {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are read in place");

constexpr uint64_t kMaxNameBytes = uint64_t{1} << 20;
constexpr uint32_t kMaxDims = 4;
// The least a key-value pair (empty key, u8) and a tensor's row (1 dimension) can take.
constexpr uint64_t kLeastPairBytes = 8 + 4 + 1;
constexpr uint64_t kLeastTensorBytes = 8 + 4 + 8 + 4 + 8;

Status Truncated(const std::string& where) {
  return InvalidArgument("the file ends inside " + where);
}

// Bytes of a fixed-size value; 0 for strings, arrays and unknown types.
size_t FixedBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    default:
      return 0;
  }
}

template <typename Stored, typename Held>
bool ReadAs(ByteCursor& cursor, GgufValue* value) {
  const auto raw = cursor.Read<Stored>();
  if (raw) value->value = static_cast<Held>(*raw);
  return raw.has_value();
}

bool ReadScalar(ByteCursor& cursor, GgufValue* value) {
  switch (value->type) {
    case GgufType::kUint8:
      return ReadAs<uint8_t, uint64_t>(cursor, value);
    case GgufType::kInt8:
      return ReadAs<int8_t, int64_t>(cursor, value);
    case GgufType::kUint16:
      return ReadAs<uint16_t, uint64_t>(cursor, value);
    case GgufType::kInt16:
      return ReadAs<int16_t, int64_t>(cursor, value);
    case GgufType::kUint32:
      return ReadAs<uint32_t, uint64_t>(cursor, value);
    case GgufType::kInt32:
      return ReadAs<int32_t, int64_t>(cursor, value);
    case GgufType::kUint64:
      return ReadAs<uint64_t, uint64_t>(cursor, value);
    case GgufType::kInt64:
      return ReadAs<int64_t, int64_t>(cursor, value);
    case GgufType::kFloat32:
      return ReadAs<float, double>(cursor, value);
    case GgufType::kFloat64:
      return ReadAs<double, double>(cursor, value);
    case GgufType::kBool:
      return ReadAs<uint8_t, bool>(cursor, value);
    default:
      return false;
  }
}

Status ReadArray(ByteCursor& cursor, const std::string& label, GgufArray* array) {
  const auto element = cursor.Read<uint32_t>();
  const auto count = cursor.Read<uint64_t>();
  if (!element || !count) return Truncated(label);
  array->element = static_cast<GgufType>(*element);
  array->count = *count;
  if (array->element == GgufType::kArray) return Unimplemented(label + " is an array of arrays");
  ByteCursor begin = cursor;
  if (array->element == GgufType::kString) {
    for (uint64_t i = 0; i < *count; ++i) {
      if (!cursor.ReadString()) return Truncated(label);
    }
  } else {
    const size_t size = FixedBytes(array->element);
    if (size == 0) {
      return InvalidArgument(label + " has unknown element type " + std::to_string(*element));
    }
    const auto bytes = CheckedMultiply(*count, size);
    if (!bytes || !cursor.Take(*bytes)) return Truncated(label);
  }
  array->data = *begin.Take(cursor.position() - begin.position());
  return Status::Ok();
}

Status ReadValue(ByteCursor& cursor, const std::string& label, GgufValue* value) {
  if (value->type == GgufType::kArray) {
    GgufArray array;
    KVASIR_RETURN_IF_ERROR(ReadArray(cursor, label, &array));
    value->value = array;
    return Status::Ok();
  }
  if (value->type == GgufType::kString) {
    const auto text = cursor.ReadString();
    if (!text) return Truncated(label);
    value->value = *text;
    return Status::Ok();
  }
  if (FixedBytes(value->type) == 0) {
    return InvalidArgument(label + " has unknown type " +
                           std::to_string(static_cast<uint32_t>(value->type)));
  }
  return ReadScalar(cursor, value) ? Status::Ok() : Truncated(label);
}

Result<std::string> ReadName(ByteCursor& cursor, const std::string& what) {
  const auto name = cursor.ReadString();
  if (!name) return Truncated(what);
  if (name->size() > kMaxNameBytes) return InvalidArgument(what + " is over 1 MiB");
  return std::string(*name);
}

Result<DType> TensorType(uint32_t code, const std::string& label) {
  switch (code) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 30:
      return DType::kBF16;
    default:
      return Unimplemented(label + " has tensor type " + std::to_string(code) +
                           "; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, "
                           "Q5_K, Q6_K");
  }
}

Status ReadDims(ByteCursor& cursor, const std::string& label, std::vector<int64_t>* dims) {
  const auto count = cursor.Read<uint32_t>();
  if (!count) return Truncated(label);
  if (*count < 1 || *count > kMaxDims) {
    return InvalidArgument(label + " has " + std::to_string(*count) + " dimensions, not 1 to 4");
  }
  for (uint32_t i = 0; i < *count; ++i) {
    const auto dim = cursor.Read<uint64_t>();
    if (!dim) return Truncated(label);
    if (*dim == 0 || *dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return InvalidArgument(label + " has a dimension of " + std::to_string(*dim));
    }
    dims->push_back(static_cast<int64_t>(*dim));
  }
  return Status::Ok();
}

Result<uint64_t> TensorBytes(DType dtype, const std::vector<int64_t>& dims,
                             const std::string& label) {
  const DTypeTraits& traits = TraitsOf(dtype);
  if (dims[0] % traits.block_elements != 0) {
    return InvalidArgument(label + " has rows of " + std::to_string(dims[0]) +
                           " elements, no multiple of " + std::string(traits.name) +
                           "'s block of " + std::to_string(traits.block_elements));
  }
  const auto elements = CheckedProduct(dims);
  if (!elements) return InvalidArgument(label + ": the product of its dimensions overflows");
  const auto bytes = CheckedMultiply(*elements / static_cast<uint64_t>(traits.block_elements),
                                     static_cast<uint64_t>(traits.block_bytes));
  if (!bytes) return InvalidArgument(label + ": its size in bytes overflows");
  return *bytes;
}

Status CheckVersion(uint32_t version) {
  if (version == 2 || version == 3) return Status::Ok();
  if ((version & 0xFFFF) == 0 && version != 0) {
    return Unimplemented("a big-endian GGUF file; only little-endian ones are supported");
  }
  return Unimplemented("GGUF version " + std::to_string(version) + "; supported are 2 and 3");
}

}  // namespace

Result<GgufCounts> ParseGgufHeader(ByteCursor& cursor) {
  constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
  const auto magic = cursor.Read<uint32_t>();
  if (!magic || *magic != kMagic) return InvalidArgument("not a GGUF file");
  const auto version = cursor.Read<uint32_t>();
  if (!version) return Truncated("the header");
  KVASIR_RETURN_IF_ERROR(CheckVersion(*version));
  const auto tensors = cursor.Read<uint64_t>();
  const auto values = cursor.Read<uint64_t>();
  if (!tensors || !values) return Truncated("the header");
  const uint64_t rest = cursor.remaining();
  if (*tensors > rest / kLeastTensorBytes) {
    return InvalidArgument("tensor count " + std::to_string(*tensors) + " does not fit the file");
  }
  if (*values > rest / kLeastPairBytes) {
    return InvalidArgument("metadata count " + std::to_string(*values) + " does not fit the file");
  }
  return GgufCounts{*tensors, *values};
}

Status ParseGgufPair(ByteCursor& cursor, std::string* key, GgufValue* value) {
  KVASIR_ASSIGN_OR_RETURN(*key, ReadName(cursor, "a metadata key"));
  const std::string label = "metadata \"" + *key + "\"";
  const auto type = cursor.Read<uint32_t>();
  if (!type) return Truncated(label);
  value->type = static_cast<GgufType>(*type);
  return ReadValue(cursor, label, value);
}

Result<GgufTensorInfo> ParseGgufTensorInfo(ByteCursor& cursor) {
  GgufTensorInfo info;
  KVASIR_ASSIGN_OR_RETURN(info.name, ReadName(cursor, "a tensor name"));
  const std::string label = "tensor \"" + info.name + "\"";
  KVASIR_RETURN_IF_ERROR(ReadDims(cursor, label, &info.dims));
  const auto type = cursor.Read<uint32_t>();
  const auto offset = cursor.Read<uint64_t>();
  if (!type || !offset) return Truncated(label);
  KVASIR_ASSIGN_OR_RETURN(info.dtype, TensorType(*type, label));
  KVASIR_ASSIGN_OR_RETURN(info.bytes, TensorBytes(info.dtype, info.dims, label));
  info.offset = *offset;
  return info;
}

Status CheckGgufPlacement(const std::vector<GgufTensorInfo>& infos, uint64_t data_bytes,
                          uint64_t alignment) {
  std::vector<std::pair<uint64_t, const GgufTensorInfo*>> order;
  order.reserve(infos.size());
  for (const GgufTensorInfo& info : infos) {
    const std::string label = "tensor \"" + info.name + "\"";
    if (info.offset % alignment != 0) {
      return InvalidArgument(label + " has offset " + std::to_string(info.offset) +
                             ", no multiple of the alignment " + std::to_string(alignment));
    }
    const auto end = CheckedAdd(info.offset, info.bytes);
    if (!end || *end > data_bytes) {
      return InvalidArgument(label + " (" + std::to_string(info.bytes) + " bytes at offset " +
                             std::to_string(info.offset) + ") ends beyond the file; its data has " +
                             std::to_string(data_bytes) + " bytes");
    }
    order.emplace_back(info.offset, &info);
  }
  std::sort(order.begin(), order.end());
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensorInfo& before = *order[i - 1].second;
    if (before.offset + before.bytes > order[i].first) {
      return InvalidArgument("tensors \"" + before.name + "\" and \"" + order[i].second->name +
                             "\" overlap");
    }
  }
  return Status::Ok();
}

}  // namespace kvasir
