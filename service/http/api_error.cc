#include "service/http/api_error.h"

#include <boost/json.hpp>

namespace kvasir {
namespace {

boost::json::value NullIfEmpty(const std::string& text) {
  return text.empty() ? boost::json::value(nullptr) : boost::json::value(text);
}

}  // namespace

ApiError BadField(std::string param, std::string message, std::string code) {
  ApiError error;
  error.message = param.empty() ? std::move(message) : "'" + param + "' " + std::move(message);
  error.param = std::move(param);
  error.code = std::move(code);
  return error;
}

ApiError FromStatus(const Status& status) {
  ApiError error;
  error.message = status.message();
  switch (status.code()) {
    case StatusCode::kOk:
    case StatusCode::kInternal:
    case StatusCode::kDataLoss:
      error.status = 500, error.type = "server_error", error.code = "internal_error";
      break;
    case StatusCode::kInvalidArgument:
      error.code = "invalid_value";
      break;
    case StatusCode::kNotFound:
      error.status = 404, error.code = "not_found";
      break;
    case StatusCode::kAlreadyExists:
      error.status = 409, error.code = "already_exists";
      break;
    case StatusCode::kFailedPrecondition:
      error.status = 409, error.code = "failed_precondition";
      break;
    case StatusCode::kUnimplemented:
      error.code = "unsupported_parameter";
      break;
    case StatusCode::kResourceExhausted:
      error.status = 429, error.type = "rate_limit_error", error.code = "overloaded";
      break;
    case StatusCode::kCancelled:
    case StatusCode::kUnavailable:
      error.status = 503, error.type = "server_error", error.code = "unavailable";
      break;
  }
  return error;
}

std::string ErrorBody(const ApiError& error) {
  boost::json::object inner;
  inner["message"] = error.message;
  inner["type"] = error.type;
  inner["param"] = NullIfEmpty(error.param);
  inner["code"] = NullIfEmpty(error.code);
  boost::json::object body;
  body["error"] = std::move(inner);
  return boost::json::serialize(body);
}

}  // namespace kvasir
