#include "service/chunk_prefill.h"

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

namespace kvasir {
namespace {

// Chunks in the engine at once: two fill a step's rows, two wait so that none is empty.
constexpr size_t kInFlight = 4;

void AppendSegment(const FrontKv& run, std::vector<SegmentPlan>* segments) {
  if (run.ids.empty()) return;
  SegmentPlan segment;
  segment.token_ids = run.ids;
  segment.blocks = run.blocks;
  segment.reuse = run.blocks == nullptr ? ReuseKind::kNone : ReuseKind::kPrefix;
  segments->push_back(std::move(segment));
}

std::vector<SegmentPlan> SegmentsOf(const FrontKv& run) {
  std::vector<SegmentPlan> segments;
  AppendSegment(run, &segments);
  return segments;
}

// What the engine refuses for its length, with what made it long.
Status NameFront(const Status& status, const ChunkToMake& chunk, int32_t max_context) {
  const size_t anchor = chunk.context.anchor.size(), primer = chunk.context.primer.size();
  const size_t all = anchor + primer + chunk.token_ids.size();
  if (status.ok() || chunk.context.empty() || all <= static_cast<size_t>(max_context)) {
    return status;
  }
  return Status(status.code(), status.message() + " (anchor " + std::to_string(anchor) +
                                   ", primer " + std::to_string(primer) + ", chunk " +
                                   std::to_string(chunk.token_ids.size()) +
                                   "): make smaller chunks, or use a shorter primer or none");
}

}  // namespace

ChunkToMake StoredChunk(const DocumentStore& documents, const CollectionContext& collection,
                        const Chunk& chunk) {
  const std::vector<int32_t> own = OwnPrimer(documents, chunk);
  return {chunk.token_ids, collection.encoding.Context(collection.anchor, own), own.empty()};
}

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

struct ChunkPrefill::Target {
  ChunkKey key;
  KvCodec codec;
  const std::vector<int32_t>& token_ids;
  bool persist, require_disk;
};

// Each is looked up, or made, once a call. One that cannot be made now (the engine is full) is
// computed in front of each chunk.
class ChunkPrefill::Primers {
 public:
  Primers(ChunkPrefill& prefill, const std::string& name_space, const FrontKv& anchor, bool persist)
      : prefill_(prefill), name_space_(name_space), anchor_(anchor), persist_(persist) {}

  FrontKv Of(const ChunkToMake& chunk) {
    const std::vector<int32_t>& ids = chunk.context.primer;
    if (!chunk.keep_primer || ids.empty()) return {ids, nullptr};
    const auto [at, fresh] = kept_.try_emplace(ids, FrontKv{ids, nullptr});
    if (!fresh) return at->second;
    const ChunkKey key = prefill_.runtime_.PrimerKeyOf(name_space_, anchor_.ids, ids);
    Result<FrontKv> made = prefill_.Front(
        SegmentsOf(anchor_), {key, KvCodec::kF16, at->first, persist_, false}, nullptr);
    if (made.ok()) at->second = std::move(*made);
    return at->second;
  }

 private:
  ChunkPrefill& prefill_;
  const std::string& name_space_;
  const FrontKv& anchor_;
  bool persist_;
  std::map<std::vector<int32_t>, FrontKv> kept_;
};

std::shared_ptr<ChunkPrefill::Job> ChunkPrefill::Start(std::vector<SegmentPlan> front,
                                                       const std::vector<int32_t>& token_ids) {
  auto job = std::make_shared<Job>();
  Request request;
  request.prompt.segments = std::move(front);
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

Status ChunkPrefill::Finish(Job& job, const Target& target) {
  KVASIR_RETURN_IF_ERROR(job.Wait());
  KVASIR_ASSIGN_OR_RETURN(const EncodedChunk encoded, EncodeChunk(*job.capture, target.codec));
  TieredCache& cache = runtime_.cache();
  const Status stored =
      cache.Insert(target.key, target.token_ids, encoded, {.persist = target.persist});
  if (stored.ok() || !target.persist || target.require_disk) return stored;
  return cache.Insert(target.key, target.token_ids, encoded, {.persist = false});
}

Result<FrontKv> ChunkPrefill::Front(std::vector<SegmentPlan> front, Target target, bool* made) {
  ChunkLookup lookup = runtime_.cache().Lookup(target.key, target.token_ids);
  if (!lookup.hit() && lookup.miss != MissReason::kPoolFull) {
    if (made != nullptr) *made = true;
    auto job = Start(std::move(front), target.token_ids);
    KVASIR_RETURN_IF_ERROR(Finish(*job, target));
    lookup = runtime_.cache().Lookup(target.key, target.token_ids);
  }
  return FrontKv{target.token_ids, lookup.blocks};
}

Result<FrontKv> ChunkPrefill::Anchor(const std::string& name_space, const std::vector<int32_t>& ids,
                                     bool persist, bool* made) {
  if (ids.empty()) return FrontKv{};
  return Front({}, {runtime_.KeyOf(name_space, {}, ids), runtime_.CodecOf({}), ids, persist, false},
               made);
}

std::shared_ptr<ChunkPrefill::Job> ChunkPrefill::StartChunk(const FrontKv& anchor,
                                                            const ChunkToMake& chunk,
                                                            const FrontKv& primer) {
  std::vector<SegmentPlan> front;
  if (!chunk.context.anchor.empty()) AppendSegment(anchor, &front);
  AppendSegment(primer, &front);
  return Start(std::move(front), chunk.token_ids);
}

Status ChunkPrefill::Make(const std::string& name_space, const FrontKv& anchor,
                          const std::vector<ChunkToMake>& chunks, bool persist, bool require_disk,
                          const std::function<void(size_t, const Status&)>& done) {
  Primers primers(*this, name_space, anchor, persist);
  std::deque<std::shared_ptr<Job>> running;
  Status first_error;
  size_t started = 0;
  for (size_t finished = 0; finished < chunks.size(); ++finished) {
    while (started < chunks.size() && running.size() < kInFlight) {
      const ChunkToMake& next = chunks[started++];
      running.push_back(StartChunk(anchor, next, primers.Of(next)));
    }
    const ChunkToMake& chunk = chunks[finished];
    const Target target{runtime_.KeyOf(name_space, chunk.context, chunk.token_ids),
                        runtime_.CodecOf(chunk.context), chunk.token_ids, persist, require_disk};
    const Status status =
        NameFront(Finish(*running.front(), target), chunk, runtime_.engine().max_context());
    running.pop_front();
    if (first_error.ok()) first_error = status;
    if (done) done(finished, status);
  }
  return first_error;
}

Status ChunkPrefill::MakeStored(const CollectionContext& collection,
                                const std::vector<Chunk>& chunks, bool require_disk,
                                const std::function<void(const ChunkToMake&)>& done) {
  std::vector<ChunkToMake> missing;
  std::vector<ChunkId> ids;
  for (const Chunk& chunk : chunks) {
    ChunkToMake wanted = StoredChunk(runtime_.documents(), collection, chunk);
    if (IsStored(collection, wanted)) continue;
    missing.push_back(std::move(wanted));
    ids.push_back(chunk.id);
  }
  if (missing.empty()) return Status::Ok();
  KVASIR_ASSIGN_OR_RETURN(const FrontKv anchor, Anchor(collection.name, collection.anchor, true));
  return Make(collection.name, anchor, missing, /*persist=*/true, require_disk,
              [&](size_t index, const Status& status) {
                if (!status.ok()) return;
                if (done) done(missing[index]);
                RemoveIfOutdated(KeyOf(collection, missing[index]), ids[index], missing[index]);
              });
}

// A deletion looks for chunks behind what goes before it goes; what is computed in that moment is
// found here.
void ChunkPrefill::RemoveIfOutdated(const ChunkKey& key, ChunkId id, const ChunkToMake& made) {
  if (made.keep_primer || id == 0) return;
  const Result<Chunk> now = runtime_.documents().GetChunk(id);
  if (now.ok() && OwnPrimer(runtime_.documents(), *now) == made.context.primer) return;
  [[maybe_unused]] const Result<bool> removed = runtime_.cache().Remove(key);
}

}  // namespace kvasir
