#include "tests/kernels/cuda_emulation/streams.h"

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "tests/kernels/cuda_emulation/block.h"

namespace kvasir::emulation {
namespace {

struct LateStream {
  std::deque<std::function<void()>> work;
  uint64_t queued = 0, run = 0;
  bool recording = false;
  RecordedWork recorded;

  void RunTo(uint64_t position) {
    while (run < position) {
      const std::function<void()> next = std::move(work.front());
      work.pop_front();
      next();
      ++run;
    }
  }
};

struct LateEvent {
  std::shared_ptr<LateStream> stream;  // null: never recorded, or on the null stream
  uint64_t position = 0;
};

// Held while work runs, too: work of one stream may run that of another.
std::recursive_mutex mutex;
std::map<void*, std::shared_ptr<LateStream>> streams;

std::shared_ptr<LateStream> StreamAt(void* stream) {
  const auto found = streams.find(stream);
  if (found == streams.end()) Fault("%p is no stream", stream);
  return found->second;
}

}  // namespace

void* OpenStream() {
  const std::lock_guard lock(mutex);
  auto stream = std::make_shared<LateStream>();
  void* const handle = stream.get();
  streams[handle] = std::move(stream);
  return handle;
}

void CloseStream(void* stream) {
  const std::lock_guard lock(mutex);
  RunQueued(stream);
  streams.erase(stream);
}

void QueueWork(void* stream, std::function<void()> work) {
  if (stream == nullptr) return work();
  const std::lock_guard lock(mutex);
  LateStream& late = *StreamAt(stream);
  if (late.recording) return late.recorded.push_back(std::move(work));
  late.work.push_back(std::move(work));
  ++late.queued;
}

void RunQueued(void* stream) {
  if (stream == nullptr) return;
  const std::lock_guard lock(mutex);
  const std::shared_ptr<LateStream> late = StreamAt(stream);
  if (late->recording) Fault("somebody waits for a stream that is recorded");
  late->RunTo(late->queued);
}

void RunAllStreams() {
  const std::lock_guard lock(mutex);
  for (const auto& [handle, stream] : streams) stream->RunTo(stream->queued);
}

void BeginRecording(void* stream) {
  const std::lock_guard lock(mutex);
  LateStream& late = *StreamAt(stream);
  if (late.recording) Fault("a stream is recorded twice at a time");
  late.recording = true;
}

RecordedWork EndRecording(void* stream) {
  const std::lock_guard lock(mutex);
  LateStream& late = *StreamAt(stream);
  if (!late.recording) Fault("the end of a recording that never began");
  late.recording = false;
  return std::exchange(late.recorded, {});
}

bool IsRecording(void* stream) {
  if (stream == nullptr) return false;
  const std::lock_guard lock(mutex);
  return StreamAt(stream)->recording;
}

void* OpenEvent() { return new LateEvent; }
void CloseEvent(void* event) { delete static_cast<LateEvent*>(event); }

void RecordOn(void* event, void* stream) {
  const std::lock_guard lock(mutex);
  LateEvent& late = *static_cast<LateEvent*>(event);
  late = {};
  if (IsRecording(stream)) Fault("an event of a stream that is recorded");
  if (stream != nullptr) late.stream = StreamAt(stream);
  if (stream != nullptr) late.position = late.stream->queued;
}

void QueueWait(void* stream, void* event) {
  const std::lock_guard lock(mutex);
  // As it stands now: a later record is another matter.
  QueueWork(stream, [at = *static_cast<LateEvent*>(event)] {
    if (at.stream) at.stream->RunTo(at.position);
  });
}

void RunUntil(void* event) {
  const std::lock_guard lock(mutex);
  const LateEvent at = *static_cast<LateEvent*>(event);
  if (at.stream) at.stream->RunTo(at.position);
}

bool HasRun(void* event) {
  const std::lock_guard lock(mutex);
  const LateEvent& at = *static_cast<LateEvent*>(event);
  return !at.stream || at.stream->run >= at.position;
}

}  // namespace kvasir::emulation
