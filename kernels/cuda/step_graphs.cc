#include "kernels/cuda/step_graphs.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace kvasir::cuda {

// Up to eight rows take the kernels of few rows, padded or not.
int32_t BucketOf(int32_t rows) {
  constexpr int32_t kMostRows = 256;
  const auto up_to_multiple = [&](int32_t of) { return (rows + of - 1) / of * of; };
  if (rows <= 8) return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(rows)));
  if (rows <= 64) return up_to_multiple(8);
  return rows <= kMostRows ? up_to_multiple(32) : 0;
}

void PadRows(const StepBatch& batch, int32_t rows, StepBatch* padded) {
  *padded = batch;
  const auto count = static_cast<size_t>(rows);
  padded->token_ids.resize(count, 0);
  padded->positions.resize(count, 0);
  padded->local_positions.resize(count, 0);
  padded->slots.resize(count, kNoSlot);
  while (padded->logit_rows.size() < count) {
    padded->logit_rows.push_back(static_cast<int32_t>(padded->logit_rows.size()));
  }
}

StepGraphs::~StepGraphs() {
  for (Entry& entry : entries_) Drop(entry);
}

void StepGraphs::Drop(Entry& entry) {
  if (entry.graph != nullptr) DestroyGraph(std::exchange(entry.graph, nullptr));
  entry.queued = entry.barred = false;
}

StepGraphs::Entry& StepGraphs::EntryOf(const Key& key) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found != entries_.end()) return *found;
  if (entries_.size() < kMost) {
    entries_.emplace_back().key = key;
    return entries_.back();
  }
  Entry& oldest = *std::min_element(entries_.begin(), entries_.end(),
                                    [](const Entry& a, const Entry& b) { return a.used < b.used; });
  Drop(oldest);
  oldest.key = key;
  return oldest;
}

Result<Graph> StepGraphs::Record(const std::function<Status()>& queue) {
  KVASIR_RETURN_IF_ERROR(BeginRecording(stream_, overlapped_));
  recording_ = true;
  Status queued = Internal("the step was left by an exception");
  const auto end = [&] {
    recording_ = false;
    Result<Graph> graph = EndRecording(stream_);
    if (queued.ok() || !graph.ok()) return graph;
    DestroyGraph(*graph);
    return Result<Graph>(queued);
  };
  try {
    queued = queue();
  } catch (...) {
    (void)end();
    throw;
  }
  return end();
}

Status StepGraphs::Run(const Key& key, const std::function<Stamp()>& stamp,
                       const std::function<Status()>& queue) {
  Entry& entry = EntryOf(key);
  entry.used = ++clock_;
  if (const Stamp now = stamp(); entry.stamp != now) {
    Drop(entry);
    entry.stamp = now;
  }
  if (entry.graph != nullptr) return LaunchGraph(entry.graph, stream_);
  if (!entry.queued || entry.barred) {
    KVASIR_RETURN_IF_ERROR(queue());
    entry.queued = true;
    entry.stamp = stamp();
    return Status::Ok();
  }
  Result<Graph> graph = Record(queue);
  if (!graph.ok() || stamp() != entry.stamp) {
    if (graph.ok()) DestroyGraph(*graph);
    entry.barred = true;
    entry.stamp = stamp();
    return queue();
  }
  entry.graph = *graph;
  return LaunchGraph(entry.graph, stream_);
}

}  // namespace kvasir::cuda
