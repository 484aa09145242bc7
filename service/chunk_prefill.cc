#include "service/chunk_prefill.h"

#include <condition_variable>
#include <deque>
#include <mutex>

namespace kvasir {
namespace {

// Chunks in the engine at once: two fill a step's rows, two wait so that none is empty.
constexpr size_t kInFlight = 4;

}  // namespace

// One prefill-only request and the place where its end is awaited.
struct ChunkPrefill::Job {
  std::shared_ptr<KvCapture> capture = std::make_shared<KvCapture>();
  std::mutex mutex;
  std::condition_variable changed;
  bool finished = false;
  Status status;

  void End(const Status& result) {
    std::lock_guard lock(mutex);
    finished = true;
    status = result;
    changed.notify_all();
  }
  Status Wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return finished; });
    return status;
  }
};

std::shared_ptr<ChunkPrefill::Job> ChunkPrefill::Start(const AnchorKv& anchor,
                                                       const std::vector<int32_t>& token_ids) {
  auto job = std::make_shared<Job>();
  Request request;
  if (!anchor.ids.empty()) {
    SegmentPlan segment;
    segment.token_ids = anchor.ids;
    segment.blocks = anchor.blocks;
    segment.reuse = anchor.blocks == nullptr ? ReuseKind::kNone : ReuseKind::kPrefix;
    request.prompt.segments.push_back(std::move(segment));
  }
  SegmentPlan chunk;
  chunk.token_ids = token_ids;
  request.prompt.segments.push_back(std::move(chunk));
  request.max_tokens = 0;
  request.capture = job->capture;
  request.sink = [job](const TokenEvent& event) {
    if (event.finish == FinishReason::kNone) return;
    const bool failed =
        event.finish == FinishReason::kError || event.finish == FinishReason::kCancelled;
    job->End(!failed             ? Status::Ok()
             : event.status.ok() ? Cancelled("the engine stopped")
                                 : event.status);
  };
  const Result<RequestId> id = runtime_.engine().Submit(std::move(request));
  if (!id.ok()) job->End(id.status());
  return job;
}

Status ChunkPrefill::Finish(Job& job, const std::string& name_space,
                            const std::vector<int32_t>& anchor,
                            const std::vector<int32_t>& token_ids, bool persist,
                            bool require_disk) {
  KVASIR_RETURN_IF_ERROR(job.Wait());
  KVASIR_ASSIGN_OR_RETURN(const EncodedChunk encoded,
                          EncodeChunk(*job.capture, runtime_.CodecOf(anchor)));
  const ChunkKey key = runtime_.KeyOf(name_space, anchor, token_ids);
  const Status stored = runtime_.cache().Insert(key, token_ids, encoded, {.persist = persist});
  if (stored.ok() || !persist || require_disk) return stored;
  return runtime_.cache().Insert(key, token_ids, encoded, {.persist = false});
}

Result<AnchorKv> ChunkPrefill::Anchor(const std::string& name_space,
                                      const std::vector<int32_t>& ids, bool persist, bool* made) {
  AnchorKv anchor{ids, nullptr};
  if (ids.empty()) return anchor;
  const ChunkKey key = runtime_.KeyOf(name_space, {}, ids);
  ChunkLookup lookup = runtime_.cache().Lookup(key, ids);
  if (!lookup.hit() && lookup.miss != MissReason::kPoolFull) {
    if (made != nullptr) *made = true;
    auto job = Start({}, ids);
    KVASIR_RETURN_IF_ERROR(Finish(*job, name_space, {}, ids, persist, false));
    lookup = runtime_.cache().Lookup(key, ids);
  }
  anchor.blocks = lookup.blocks;
  return anchor;
}

Status ChunkPrefill::Make(const std::string& name_space, const AnchorKv& anchor,
                          const std::vector<ChunkToMake>& chunks, bool persist, bool require_disk,
                          const std::function<void(size_t, const Status&)>& done) {
  std::deque<std::shared_ptr<Job>> running;
  Status first_error;
  size_t started = 0;
  for (size_t finished = 0; finished < chunks.size(); ++finished) {
    while (started < chunks.size() && running.size() < kInFlight) {
      running.push_back(Start(anchor, chunks[started++].token_ids));
    }
    const Status status = Finish(*running.front(), name_space, anchor.ids,
                                 chunks[finished].token_ids, persist, require_disk);
    running.pop_front();
    if (first_error.ok()) first_error = status;
    if (done) done(finished, status);
  }
  return first_error;
}

}  // namespace kvasir
