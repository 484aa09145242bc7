// FieldReader: reads a JSON object field by field into typed values, and remembers the first
// mistake as an ApiError that names the field. Numbers are checked against bounds.h.
//
// Not thread-safe; the object must outlive it. Fields that nobody asked for are reported by
// Finish().
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "service/http/api_error.h"

namespace kvasir {

// Parses strict JSON (UTF-8 checked, depth bounded) that must be an object.
ApiResult<boost::json::object> ParseObject(std::string_view body);

class FieldReader {
 public:
  // `path` is put before field names in errors, e.g. "chunk_cache.".
  explicit FieldReader(const boost::json::object& object, std::string path = "")
      : object_(object), path_(std::move(path)) {}

  // Each returns whether the field is there, not null and of the right type and range.
  bool Text(std::string_view field, std::string* out);
  bool Flag(std::string_view field, bool* out);
  bool Integer(std::string_view field, int64_t* out);
  bool Number(std::string_view field, double* out);
  const boost::json::value* Value(std::string_view field);  // null if absent or null

  // Fields that are known and do nothing here.
  void Accept(std::initializer_list<std::string_view> fields);
  // Fields that are known and not supported: 400 unsupported_parameter if given (and not null).
  void Refuse(std::initializer_list<std::string_view> fields);

  void Fail(std::string_view field, std::string message, std::string code = "invalid_value");
  bool failed() const { return error_.has_value(); }
  // The first mistake; an unknown field is one, with the nearest known name.
  std::optional<ApiError> Finish();

 private:
  bool InBounds(std::string_view field, double value);

  const boost::json::object& object_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
  std::optional<ApiError> error_;
};

}  // namespace kvasir
