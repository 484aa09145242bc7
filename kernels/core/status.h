// Status and Result<T>: how every Kvasir library reports failure across its boundary.
//
// No exceptions cross a library boundary. A message names the thing that is wrong and what to do
// about it. Thread safety: immutable values.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace kvasir {

enum class StatusCode {
  kOk,
  kInvalidArgument,     // the caller's value is wrong; HTTP 400, CLI exit 2 where it is usage
  kNotFound,            // HTTP 404
  kAlreadyExists,       // HTTP 409
  kFailedPrecondition,  // the state does not allow it (data folder in use, other version)
  kResourceExhausted,   // queue, pool or disk full; HTTP 429 or 503
  kUnimplemented,       // a known thing that is not supported, by name
  kDataLoss,            // stored or read bytes are corrupt
  kCancelled,
  kUnavailable,  // try again later; HTTP 503
  kInternal,     // our own fault; HTTP 500
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status Ok() { return {}; }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  std::string ToString() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status InvalidArgument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status FailedPrecondition(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
inline Status ResourceExhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status Unimplemented(std::string m) { return {StatusCode::kUnimplemented, std::move(m)}; }
inline Status DataLoss(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
inline Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status Unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status Internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

// Prints file, line and message, then aborts. For our own bugs only, never for input.
[[noreturn]] void CheckFailed(const char* file, int line, const char* what);

#define KVASIR_CHECK(condition) \
  (static_cast<bool>(condition) ? void(0) : ::kvasir::CheckFailed(__FILE__, __LINE__, #condition))

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}        // NOLINT(google-explicit-constructor)
  Result(Status status) : state_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    KVASIR_CHECK(!std::get<Status>(state_).ok());
  }

  bool ok() const { return std::holds_alternative<T>(state_); }
  Status status() const { return ok() ? Status::Ok() : std::get<Status>(state_); }

  T& value() & {
    KVASIR_CHECK(ok());
    return std::get<T>(state_);
  }
  const T& value() const& {
    KVASIR_CHECK(ok());
    return std::get<T>(state_);
  }
  T&& value() && {
    KVASIR_CHECK(ok());
    return std::get<T>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

#define KVASIR_RETURN_IF_ERROR(expression)         \
  do {                                             \
    ::kvasir::Status kvasir_status = (expression); \
    if (!kvasir_status.ok()) return kvasir_status; \
  } while (false)

#define KVASIR_CONCAT_INNER(a, b) a##b
#define KVASIR_CONCAT(a, b) KVASIR_CONCAT_INNER(a, b)
#define KVASIR_ASSIGN_OR_RETURN(declaration, expression) \
  KVASIR_ASSIGN_OR_RETURN_IMPL(KVASIR_CONCAT(kvasir_result_, __LINE__), declaration, expression)
#define KVASIR_ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                         \
  if (!result.ok()) return result.status();                           \
  declaration = std::move(result).value()

}  // namespace kvasir
