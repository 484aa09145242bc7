#include "service/http/router.h"

namespace kvasir {
namespace {

struct Entry {
  std::string_view method, path;  // a path that ends in '/' takes the rest as its parameter
  Route route;
  Lane lane;
  bool open = false;
};

constexpr Entry kRoutes[] = {
    {"GET", "/health", Route::kHealth, Lane::kInline, true},
    {"GET", "/readyz", Route::kReady, Lane::kInline, true},
    {"GET", "/version", Route::kVersion, Lane::kInline},
    {"GET", "/metrics", Route::kMetrics, Lane::kInline},
    {"GET", "/v1/models", Route::kModels, Lane::kInline},
    {"GET", "/v1/models/", Route::kModel, Lane::kInline},
    {"GET", "/v1/stats", Route::kStats, Lane::kWork},
    {"POST", "/v1/chat/completions", Route::kChat, Lane::kGenerate},
    {"POST", "/v1/completions", Route::kCompletion, Lane::kGenerate},
    {"POST", "/v1/documents", Route::kDocumentsPost, Lane::kIngest},
    {"GET", "/v1/documents", Route::kDocumentsList, Lane::kWork},
    {"GET", "/v1/documents/", Route::kDocumentGet, Lane::kWork},
    {"DELETE", "/v1/documents/", Route::kDocumentDelete, Lane::kWork},
    {"POST", "/v1/search", Route::kSearch, Lane::kWork},
    {"POST", "/v1/embeddings", Route::kEmbeddings, Lane::kWork},
    {"POST", "/tokenize", Route::kTokenize, Lane::kWork},
    {"POST", "/detokenize", Route::kDetokenize, Lane::kWork},
};

bool Fits(const Entry& entry, std::string_view path, std::string* parameter) {
  if (entry.path.back() != '/') return path == entry.path;
  if (!path.starts_with(entry.path) || path.size() == entry.path.size()) return false;
  *parameter = path.substr(entry.path.size());
  return true;
}

}  // namespace

RouteMatch MatchRoute(std::string_view method, std::string_view path) {
  RouteMatch match;
  for (const Entry& entry : kRoutes) {
    std::string parameter;
    if (!Fits(entry, path, &parameter)) continue;
    const bool head = method == "HEAD" && entry.method == "GET";
    if (method == entry.method || head) {
      return {entry.route, entry.lane, parameter, "", entry.path, entry.open};
    }
    match.route = Route::kMethodNotAllowed;
    match.allow += (match.allow.empty() ? "" : ", ") + std::string(entry.method);
  }
  return match;
}

}  // namespace kvasir
