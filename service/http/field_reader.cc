#include "service/http/field_reader.h"

#include <cmath>

#include "service/did_you_mean.h"
#include "service/http/bounds.h"

namespace kvasir {
namespace {

std::string Plain(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

}  // namespace

ApiResult<boost::json::object> ParseObject(std::string_view body) {
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code error;
  boost::json::value value =
      boost::json::parse({body.data(), body.size()}, error, boost::json::storage_ptr(), options);
  if (error) {
    return BadField("", "The body is not valid JSON: " + error.message(), "invalid_json");
  }
  if (!value.is_object()) {
    return BadField("", "The body must be a JSON object", "invalid_json");
  }
  return std::move(value.get_object());
}

void FieldReader::Fail(std::string_view field, std::string message, std::string code) {
  if (!error_) error_ = BadField(path_ + std::string(field), std::move(message), std::move(code));
}

const boost::json::value* FieldReader::Value(std::string_view field) {
  known_.emplace(field);
  const boost::json::value* value = object_.if_contains({field.data(), field.size()});
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool FieldReader::Text(std::string_view field, std::string* out) {
  const boost::json::value* value = Value(field);
  if (value == nullptr) return false;
  if (!value->is_string()) {
    Fail(field, "must be a string", "invalid_type");
    return false;
  }
  *out = std::string(value->get_string().data(), value->get_string().size());
  return true;
}

bool FieldReader::Flag(std::string_view field, bool* out) {
  const boost::json::value* value = Value(field);
  if (value == nullptr) return false;
  if (!value->is_bool()) {
    Fail(field, "must be true or false", "invalid_type");
    return false;
  }
  *out = value->get_bool();
  return true;
}

bool FieldReader::InBounds(std::string_view field, double value) {
  const auto bound = BoundOf(field);
  if (!bound || (value >= bound->low && value <= bound->high)) return true;
  Fail(field, "must be between " + Plain(bound->low) + " and " + Plain(bound->high));
  return false;
}

bool FieldReader::Integer(std::string_view field, int64_t* out) {
  const boost::json::value* value = Value(field);
  if (value == nullptr) return false;
  if (!value->is_int64()) {
    Fail(field, "must be an integer", "invalid_type");
    return false;
  }
  if (!InBounds(field, static_cast<double>(value->get_int64()))) return false;
  *out = value->get_int64();
  return true;
}

bool FieldReader::Number(std::string_view field, double* out) {
  const boost::json::value* value = Value(field);
  if (value == nullptr) return false;
  if (!value->is_number()) {
    Fail(field, "must be a number", "invalid_type");
    return false;
  }
  const double number = value->to_number<double>();
  if (!std::isfinite(number) || !InBounds(field, number)) return false;
  *out = number;
  return true;
}

void FieldReader::Accept(std::initializer_list<std::string_view> fields) {
  for (const std::string_view field : fields) known_.emplace(field);
}

void FieldReader::Refuse(std::initializer_list<std::string_view> fields) {
  for (const std::string_view field : fields) {
    if (Value(field) != nullptr) {
      Fail(field, "is not supported by this server: leave it out", "unsupported_parameter");
    }
  }
}

std::optional<ApiError> FieldReader::Finish() {
  if (error_) return error_;
  for (const auto& member : object_) {
    const std::string name(member.key().data(), member.key().size());
    if (known_.contains(name)) continue;
    Fail(name, "is not a known field" + DidYouMean(name, {known_.begin(), known_.end()}),
         "unsupported_parameter");
    break;
  }
  return error_;
}

}  // namespace kvasir
