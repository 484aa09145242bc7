#include "service/engine_call.h"

#include <chrono>
#include <future>
#include <memory>
#include <utility>

namespace kvasir {
namespace {

constexpr std::chrono::milliseconds kPoll{5};

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
  return RunWhile(engine, std::move(request), nullptr);
}

Result<FinishedCall> RunWhile(Engine& engine, Request request, const std::function<bool()>& go_on) {
  auto call = std::make_shared<Call>();
  std::future<Status> end = call->end.get_future();
  request.sink = [call](const TokenEvent& event) {
    if (event.token >= 0) call->finished.tokens.push_back(event.token);
    if (event.finish == FinishReason::kNone) return;
    call->finished.timing = event.timing;
    call->end.set_value(StatusOf(event));
  };
  KVASIR_ASSIGN_OR_RETURN(const RequestId id, engine.Submit(std::move(request)));
  while (go_on && end.wait_for(kPoll) != std::future_status::ready) {
    if (go_on()) continue;
    engine.Cancel(id);
    break;
  }
  KVASIR_RETURN_IF_ERROR(end.get());
  return std::move(call->finished);
}

}  // namespace kvasir
