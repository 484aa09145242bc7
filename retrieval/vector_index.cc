#include "retrieval/vector_index.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>

#include "retrieval/faiss_guard.h"
#include "retrieval/vector_rows.h"

namespace kvasir {
namespace {

constexpr int32_t kMostHits = 1 << 16;
constexpr int kBuilderNice = 15;  // building yields to the engine's threads

bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

Status CheckOptions(const VectorIndexOptions& o) {
  if (o.dimension < 1 || o.dimension > 16384 || o.flat_limit < 0 || o.hnsw_links < 2 ||
      o.hnsw_links > 256 || o.hnsw_build_candidates < 1 || o.hnsw_search_candidates < 1) {
    return InvalidArgument("vector index: an option is out of range");
  }
  return Status::Ok();
}

}  // namespace

// Writers hold `writers` for a whole change and `mutex` for the moment of it. The builder holds
// `writers` at its snapshot and its adoption, not while it builds.
struct VectorIndex::State {
  explicit State(const VectorIndexOptions& o) : options(o), rows(o) {}
  ~State() {
    stop = true;
    if (builder.joinable()) builder.join();
  }

  VectorIndexOptions options;
  std::mutex writers;
  mutable std::shared_mutex mutex;
  VectorRows rows;        // written under both locks
  bool building = false;  // under `writers`
  std::condition_variable built;
  std::thread builder;  // under `writers`; joined before the next and at the end
  std::atomic<bool> stop = false;

  Status CheckAdd(std::span<const int64_t> ids, std::span<const float> vectors) const;
  void Tend();
  bool ManyDead() const;
  void SweepIfSmall();
  bool NeedsGraph() const;
  void StartBuilding();
  void BuildGraphs();
};

Status VectorIndex::State::CheckAdd(std::span<const int64_t> ids,
                                    std::span<const float> vectors) const {
  if (vectors.size() != ids.size() * static_cast<size_t>(options.dimension)) {
    return InvalidArgument("vector index: " + std::to_string(vectors.size()) + " values for " +
                           std::to_string(ids.size()) + " vectors of " +
                           std::to_string(options.dimension));
  }
  if (!AllFinite(vectors)) return InvalidArgument("vector index: a value is not finite");
  std::unordered_set<int64_t> seen;
  for (const int64_t id : ids) {
    if (!rows.Holds(id) && seen.insert(id).second) continue;
    return {StatusCode::kAlreadyExists,
            "vector index: id " + std::to_string(id) + " is there already"};
  }
  return Status::Ok();
}

// After a change, under `writers`. What fails for want of memory leaves the index correct, only
// larger or slower, and is tried again at the next change.
void VectorIndex::State::Tend() {
  if (building) return;  // the builder looks again when it is done
  SweepIfSmall();
  if (NeedsGraph()) StartBuilding();
}

bool VectorIndex::State::ManyDead() const { return rows.dead() * 3 > rows.total(); }

// An index of at most flat_limit live vectors is copied without its dead rows and its graph.
void VectorIndex::State::SweepIfSmall() {
  if (rows.live() > options.flat_limit || !ManyDead()) return;
  VectorRows live(options);
  if (!Guarded([&] { live = rows.LiveOnly(); }).ok()) return;
  std::unique_lock lock(mutex);
  std::swap(rows, live);
}

bool VectorIndex::State::NeedsGraph() const {
  if (rows.live() <= options.flat_limit) return false;
  return ManyDead() || rows.tail_rows() > std::max(options.flat_limit / 4, rows.graph_rows() / 8);
}

void VectorIndex::State::StartBuilding() {
  if (builder.joinable()) builder.join();  // it has ended: `building` is false
  building = true;
  try {
    builder = std::thread([this] { BuildGraphs(); });
  } catch (const std::exception&) {
    building = false;
  }
}

// The builder's thread: one graph after the other until none is needed.
void VectorIndex::State::BuildGraphs() {
  setpriority(PRIO_PROCESS, 0, kBuilderNice);  // of this thread alone, on Linux
  std::unique_lock writer(writers);
  for (bool again = true; again;) {
    GraphBuilder graph;
    Status status = Guarded([&] { graph.Snapshot(rows); });
    writer.unlock();
    if (status.ok()) status = Guarded([&] { graph.Build(stop); });
    writer.lock();
    if (status.ok() && !stop) {
      std::unique_lock lock(mutex);
      status = Guarded([&] { graph.Adopt(&rows); });
    }
    SweepIfSmall();
    again = status.ok() && !stop && NeedsGraph();
  }
  building = false;
  built.notify_all();
}

VectorIndex::VectorIndex(std::unique_ptr<State> state) : state_(std::move(state)) {}
VectorIndex::~VectorIndex() = default;

Result<std::unique_ptr<VectorIndex>> VectorIndex::Create(const VectorIndexOptions& options) {
  KVASIR_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<State> state;
  KVASIR_RETURN_IF_ERROR(Guarded([&] { state = std::make_unique<State>(options); }));
  return std::unique_ptr<VectorIndex>(new VectorIndex(std::move(state)));
}

Status VectorIndex::Add(std::span<const int64_t> ids, std::span<const float> vectors) {
  std::lock_guard writer(state_->writers);
  KVASIR_RETURN_IF_ERROR(state_->CheckAdd(ids, vectors));
  {
    std::unique_lock lock(state_->mutex);
    KVASIR_RETURN_IF_ERROR(Guarded([&] { state_->rows.Add(ids, vectors.data()); }));
  }
  state_->Tend();
  return Status::Ok();
}

int64_t VectorIndex::Remove(std::span<const int64_t> ids) {
  std::lock_guard writer(state_->writers);
  int64_t removed = 0;
  {
    std::unique_lock lock(state_->mutex);
    for (const int64_t id : ids) removed += state_->rows.Remove(id) ? 1 : 0;
  }
  state_->Tend();
  return removed;
}

Result<std::vector<VectorHit>> VectorIndex::Search(std::span<const float> query, int32_t k,
                                                   const Filter& filter) const {
  if (query.size() != static_cast<size_t>(state_->options.dimension) || !AllFinite(query)) {
    return InvalidArgument("vector index: a query must be " +
                           std::to_string(state_->options.dimension) + " finite values, found " +
                           std::to_string(query.size()));
  }
  if (k < 1 || k > kMostHits) {
    return InvalidArgument("vector index: k must be 1 to " + std::to_string(kMostHits));
  }
  std::shared_lock lock(state_->mutex);
  const VectorRows& rows = state_->rows;
  const auto wanted = static_cast<size_t>(std::min<int64_t>(k, rows.live()));
  std::vector<VectorHit> hits;
  if (wanted == 0) return hits;
  KVASIR_RETURN_IF_ERROR(Guarded([&] {
    if (rows.graph_rows() > 0 && !filter) {
      hits = rows.Walk(query.data(), wanted);
      if (hits.size() == wanted) return;
    }
    hits = rows.Scan(query.data(), wanted, filter);
  }));
  return hits;
}

void VectorIndex::WaitUntilBuilt() {
  std::unique_lock writer(state_->writers);
  state_->built.wait(writer, [this] { return !state_->building; });
}

int64_t VectorIndex::size() const {
  std::shared_lock lock(state_->mutex);
  return state_->rows.live();
}

bool VectorIndex::approximate() const {
  std::shared_lock lock(state_->mutex);
  return state_->rows.graph_rows() > 0;
}

size_t VectorIndex::bytes() const {
  std::shared_lock lock(state_->mutex);
  return state_->rows.bytes();
}

}  // namespace kvasir
