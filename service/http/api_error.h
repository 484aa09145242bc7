// ApiError: the nested error object of the OpenAI dialect, and the one place where a Status
// becomes an HTTP status.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "kernels/core/status.h"

namespace kvasir {

struct ApiError {
  int status = 400;
  std::string message;
  std::string type = "invalid_request_error";
  std::string param;  // the field at fault, "" = null
  std::string code;   // "" = null
};

ApiError BadField(std::string param, std::string message, std::string code = "invalid_value");
ApiError FromStatus(const Status& status);

// {"error":{"message","type","param","code"}}
std::string ErrorBody(const ApiError& error);

// A value or the error to answer with.
template <typename T>
class ApiResult {
 public:
  ApiResult() : state_(ApiError()) {}
  ApiResult(T value) : state_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  ApiResult(ApiError error) : state_(std::move(error)) {}  // NOLINT(google-explicit-constructor)
  bool ok() const { return state_.index() == 0; }
  T& operator*() { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const ApiError& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, ApiError> state_;
};

}  // namespace kvasir
