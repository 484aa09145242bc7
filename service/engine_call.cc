#include "service/engine_call.h"

#include <future>
#include <memory>
#include <utility>

namespace kvasir {
namespace {

struct Call {
  FinishedCall finished;
  std::promise<Status> end;
};

Status StatusOf(const TokenEvent& event) {
  if (event.finish == FinishReason::kError) return event.status;
  if (event.finish == FinishReason::kCancelled) {
    return event.status.ok() ? Cancelled("the engine stopped") : event.status;
  }
  return Status::Ok();
}

}  // namespace

Result<FinishedCall> RunToEnd(Engine& engine, Request request) {
  auto call = std::make_shared<Call>();
  std::future<Status> end = call->end.get_future();
  request.sink = [call](const TokenEvent& event) {
    if (event.token >= 0) call->finished.tokens.push_back(event.token);
    if (event.finish == FinishReason::kNone) return;
    call->finished.timing = event.timing;
    call->end.set_value(StatusOf(event));
  };
  KVASIR_RETURN_IF_ERROR(engine.Submit(std::move(request)).status());
  KVASIR_RETURN_IF_ERROR(end.get());
  return std::move(call->finished);
}

}  // namespace kvasir
