#include "service/http/api.h"

namespace kvasir {

HttpReply HandleRequest(ServiceContext& service, const RouteMatch& match,
                        const HttpRequest& request) {
  switch (match.route) {
    case Route::kNotFound:
    case Route::kChat:
    case Route::kCompletion: {
      ApiError error;
      error.status = 404;
      error.message = "There is no " + request.method + " " + request.path;
      error.code = "not_found";
      return ErrorReply(error);
    }
    case Route::kMethodNotAllowed: {
      ApiError error;
      error.status = 405;
      error.message =
          request.method + " is not allowed on " + request.path + ": use " + match.allow;
      error.code = "method_not_allowed";
      HttpReply reply = ErrorReply(error);
      reply.headers.emplace_back("allow", match.allow);
      return reply;
    }
    case Route::kDocumentsPost:
    case Route::kDocumentsList:
    case Route::kDocumentGet:
    case Route::kDocumentDelete:
      return HandleDocuments(service, match, request);
    case Route::kSearch:
    case Route::kEmbeddings:
    case Route::kTokenize:
    case Route::kDetokenize:
      return HandleText(service, match, request);
    default:
      return HandleInfo(service, match);
  }
}

}  // namespace kvasir
