// An HTTP request and reply as values, free of any socket or vendor type.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "service/http/api_error.h"

namespace kvasir {

struct HttpRequest {
  std::string method, path;
  std::map<std::string, std::string> query;  // decoded
  std::string content_type, authorization, request_id;
  std::string body;
};

struct HttpReply {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// The reply for an error: nested body, and retry-after headers for 429 and 503.
HttpReply ErrorReply(const ApiError& error);

// Splits "/path?a=b" and decodes percent escapes; false if the target is malformed.
bool ParseTarget(std::string_view target, HttpRequest* request);

// Whether `text` is strict UTF-8: no overlong forms, surrogates or values beyond U+10FFFF.
bool IsUtf8(std::string_view text);

// Compares in time that depends on the lengths alone.
bool ConstantTimeEqual(std::string_view a, std::string_view b);

// Whether an Authorization header carries one of the keys ("Bearer KEY"). No keys = open.
bool IsAuthorized(std::string_view authorization, const std::vector<std::string>& keys);

// The key of an authorized header; "" without keys, whatever the header says.
std::string ApiKeyOf(std::string_view authorization, const std::vector<std::string>& keys);

}  // namespace kvasir
