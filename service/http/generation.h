// Generation: one completion request while it runs, as bytes. The session asks for what is ready
// and waits for `wake` in between; the engine's thread only puts events into a queue.
//
// Thread safety: Start blocks and belongs on a worker; Drain, Reply and the rest belong to one
// thread (the session's); events arrive from the engine's thread. Held by shared_ptr: the engine's
// sinks keep it alive until every choice has ended.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "service/http/chat_request.h"
#include "service/http/generation_reply.h"
#include "service/http/http_types.h"
#include "service/provisional_text.h"
#include "service/service_context.h"

namespace kvasir {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // Parses nothing: `request` is checked already. `wake` may be called from any thread.
  static ApiResult<std::shared_ptr<Generation>> Start(ServiceContext& service,
                                                      GenerationRequest request,
                                                      std::function<void()> wake);

  bool stream() const { return request_.stream; }
  // Handles what has arrived; for a stream returns the bytes to send now.
  std::string Drain();
  bool finished() const { return open_ == 0; }
  // The whole reply, once finished. A failed engine is an error here.
  HttpReply Reply();
  // The client is gone.
  void Cancel();

 private:
  struct Event {
    size_t choice;
    TokenEvent token;
    bool provisional = false;
  };
  Generation(ServiceContext& service, GenerationRequest request, std::function<void()> wake)
      : service_(service), request_(std::move(request)), wake_(std::move(wake)) {}

  Status SubmitAll(const PreparedPrompt& prompt);
  std::shared_ptr<DraftRun> MakeDraftRun(size_t choice);
  void OnEvent(size_t choice, const TokenEvent& event);
  void OnDrafted(size_t choice, int32_t token);
  std::string Open(size_t choice);
  std::string Handle(const Event& event);
  std::string HandleProvisional(const Event& event);
  // The correction of a choice's provisional text, if there is one to send.
  std::string Correct(size_t choice);
  std::string EndChoice(size_t choice);
  DraftUsage DraftsUsage() const;
  ReplyUsage Usage() const;
  void CountOnce();

  ServiceContext& service_;
  GenerationRequest request_;
  std::function<void()> wake_;
  ReplyContext context_;
  std::string echo_;
  std::vector<AnswerText> answers_;
  std::vector<ProvisionalText> provisional_;
  std::vector<std::shared_ptr<DraftRun>> draft_runs_;  // of a prompt with a draft, one a choice
  std::vector<RequestId> ids_;
  std::vector<bool> opened_, ended_;
  size_t open_ = 0;  // choices that have not ended
  bool failed_ = false, cancelled_ = false, counted_ = false;
  std::chrono::steady_clock::time_point begin_;

  mutable std::mutex mutex_;
  std::vector<Event> events_;  // guarded by mutex_
  double ttft_ms_ = -1;        // guarded by mutex_
};

}  // namespace kvasir
