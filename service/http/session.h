// One connection: reads requests, runs them in their lane, writes replies. Coroutines on the
// service thread; everything that decides is elsewhere (router.h, api.h, generation.h).
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/thread_pool.hpp>
#include <memory>
#include <set>

#include "service/service_context.h"

namespace kvasir {

// What sessions share. Touched by the service thread only, but for the pools.
struct SessionShared {
  explicit SessionShared(ServiceContext& context) : service(context) {}
  ServiceContext& service;
  boost::asio::thread_pool work{4};
  boost::asio::thread_pool ingest{1};
  int connections = 0;
  int busy = 0;  // requests between their header and the last byte of their reply
  int work_queued = 0, ingest_queued = 0;
  bool failure_logged = false;                   // of the engine
  std::set<boost::asio::ip::tcp::socket*> idle;  // keep-alive connections without a request
};

boost::asio::awaitable<void> RunSession(boost::asio::ip::tcp::socket socket,
                                        std::shared_ptr<SessionShared> shared);

}  // namespace kvasir
