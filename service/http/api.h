// Api: every route that answers in one piece, as a function from HttpRequest to HttpReply.
// No sockets. Thread-safe; which thread calls what is said by the route's lane.
#pragma once

#include "service/http/http_types.h"
#include "service/http/router.h"
#include "service/service_context.h"

namespace kvasir {

HttpReply HandleRequest(ServiceContext& service, const RouteMatch& match,
                        const HttpRequest& request);

// By family; `match.route` must be one of theirs.
HttpReply HandleDocuments(ServiceContext& service, const RouteMatch& match,
                          const HttpRequest& request);
HttpReply HandleText(ServiceContext& service, const RouteMatch& match, const HttpRequest& request);
HttpReply HandleInfo(ServiceContext& service, const RouteMatch& match);

// The body of GET /v1/stats, which `kvasir stats` prints as well.
std::string StatsBody(ServiceContext& service);
// The body of POST /v1/search for hits.
std::string SearchBody(const std::vector<SearchHit>& hits);

}  // namespace kvasir
