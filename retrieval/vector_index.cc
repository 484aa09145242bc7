#include "retrieval/vector_index.h"

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>
#include <faiss/utils/distances.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace kvasir {
namespace {

constexpr int32_t kMostHits = 1 << 16;
constexpr int64_t kScanRows = 4096;  // rows scored at once by an exact search: 16 KiB of scores

// Keeps FAISS on the calling thread while it lives. The setting is the thread's own.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

constexpr size_t kCopyRows = 8192;

bool IsBetter(const VectorHit& a, const VectorHit& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

// The best k of what is pushed, in any order.
class BestHits {
 public:
  explicit BestHits(size_t k) : k_(k) {}
  void Push(VectorHit hit) {
    if (heap_.size() == k_ && !IsBetter(hit, heap_.front())) return;
    heap_.push_back(hit);
    std::push_heap(heap_.begin(), heap_.end(), IsBetter);
    if (heap_.size() <= k_) return;
    std::pop_heap(heap_.begin(), heap_.end(), IsBetter);
    heap_.pop_back();
  }
  std::vector<VectorHit> Sorted() && {
    std::sort_heap(heap_.begin(), heap_.end(), IsBetter);
    return std::move(heap_);
  }

 private:
  size_t k_;
  std::vector<VectorHit> heap_;  // the worst on top
};

bool AllFinite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

// Vectors by row, dead ones included. Not thread-safe.
class Rows {
 public:
  Rows(const VectorIndexOptions& options, bool hnsw) : dimension_(options.dimension) {
    if (hnsw) {
      auto index = std::make_unique<faiss::IndexHNSWFlat>(options.dimension, options.hnsw_links,
                                                          faiss::METRIC_INNER_PRODUCT);
      index->hnsw.efConstruction = options.hnsw_build_candidates;
      graph_ = std::move(index);
    } else {
      flat_ = std::make_unique<faiss::IndexFlatIP>(options.dimension);
    }
  }

  bool hnsw() const { return graph_ != nullptr; }
  int64_t total() const { return static_cast<int64_t>(ids_.size()); }
  int64_t dead() const { return dead_; }
  int64_t live() const { return total() - dead_; }
  bool Holds(int64_t id) const { return row_of_.contains(id); }
  size_t bytes() const {
    const size_t vectors = ids_.size() * static_cast<size_t>(dimension_) * sizeof(float);
    const size_t links = graph_ ? graph_->hnsw.neighbors.size() * sizeof(int32_t) : 0;
    return vectors + links + ids_.size() * 48;
  }

  void Add(std::span<const int64_t> ids, const float* vectors) {
    faiss::Index& index = graph_ ? static_cast<faiss::Index&>(*graph_) : *flat_;
    index.add(static_cast<int64_t>(ids.size()), vectors);
    for (const int64_t id : ids) {
      row_of_[id] = total();
      ids_.push_back(id);
      is_dead_.push_back(0);
    }
  }

  bool Remove(int64_t id) {
    const auto found = row_of_.find(id);
    if (found == row_of_.end()) return false;
    is_dead_[static_cast<size_t>(found->second)] = 1;
    row_of_.erase(found);
    ++dead_;
    return true;
  }

  // In large pieces: an HNSW index prepares a lock for every row at each addition.
  void CopyLiveTo(Rows* other) const {
    std::vector<int64_t> ids;
    std::vector<float> vectors;
    for (int64_t row = 0; row < total(); ++row) {
      if (!is_dead_[static_cast<size_t>(row)]) {
        ids.push_back(ids_[static_cast<size_t>(row)]);
        vectors.insert(vectors.end(), Vector(row), Vector(row) + dimension_);
      }
      if (ids.size() < kCopyRows && row + 1 < total()) continue;
      if (!ids.empty()) other->Add(ids, vectors.data());
      ids.clear();
      vectors.clear();
    }
  }

  std::vector<VectorHit> Scan(const float* query, size_t k,
                              const VectorIndex::Filter& filter) const {
    BestHits best(k);
    std::vector<float> scores(static_cast<size_t>(std::min(kScanRows, total())));
    for (int64_t begin = 0; begin < total(); begin += kScanRows) {
      const int64_t count = std::min(kScanRows, total() - begin);
      faiss::fvec_inner_products_ny(scores.data(), query, Vector(begin),
                                    static_cast<size_t>(dimension_), static_cast<size_t>(count));
      for (int64_t i = 0; i < count; ++i) {
        const auto row = static_cast<size_t>(begin + i);
        if (is_dead_[row] || (filter && !filter(ids_[row]))) continue;
        best.Push({ids_[row], scores[static_cast<size_t>(i)]});
      }
    }
    return std::move(best).Sorted();
  }

  // Approximate. May find fewer than k although there are more: the graph leads through dead rows.
  std::vector<VectorHit> Walk(const float* query, size_t k, int32_t candidates) const {
    const int64_t wanted = std::min(
        total(), static_cast<int64_t>(k) + std::min<int64_t>(dead_, static_cast<int64_t>(k)));
    faiss::SearchParametersHNSW parameters;
    parameters.efSearch = std::max(candidates, static_cast<int32_t>(wanted));
    std::vector<float> scores(static_cast<size_t>(wanted));
    std::vector<faiss::Index::idx_t> rows(static_cast<size_t>(wanted), -1);
    graph_->search(1, query, wanted, scores.data(), rows.data(), &parameters);
    BestHits best(k);
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] < 0 || is_dead_[static_cast<size_t>(rows[i])]) continue;
      best.Push({ids_[static_cast<size_t>(rows[i])], scores[i]});
    }
    return std::move(best).Sorted();
  }

 private:
  const float* Vector(int64_t row) const {
    const faiss::IndexFlat& storage =
        graph_ ? *static_cast<const faiss::IndexFlat*>(graph_->storage) : *flat_;
    return storage.get_xb() + row * dimension_;
  }

  int64_t dimension_;
  std::unique_ptr<faiss::IndexFlatIP> flat_;  // one of the two
  std::unique_ptr<faiss::IndexHNSWFlat> graph_;
  std::vector<int64_t> ids_;      // [rows]
  std::vector<uint8_t> is_dead_;  // [rows]
  int64_t dead_ = 0;
  std::unordered_map<int64_t, int64_t> row_of_;  // id -> live row
};

Status CheckOptions(const VectorIndexOptions& o) {
  if (o.dimension < 1 || o.dimension > 16384 || o.flat_limit < 0 || o.hnsw_links < 2 ||
      o.hnsw_links > 256 || o.hnsw_build_candidates < 1 || o.hnsw_search_candidates < 1) {
    return InvalidArgument("vector index: an option is out of range");
  }
  return Status::Ok();
}

// Runs FAISS code on this thread; its exceptions become a Status.
template <typename Body>
Status Guarded(const Body& body) {
  const OneThread one_thread;
  try {
    body();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("no memory for the vector index");
  } catch (const std::exception& error) {
    return Internal(std::string("vector index: ") + error.what());
  }
  return Status::Ok();
}

}  // namespace

struct VectorIndex::State {
  VectorIndexOptions options;
  std::mutex writers;               // one writer at a time
  mutable std::shared_mutex mutex;  // guards `rows` and what it points to
  std::unique_ptr<Rows> rows;

  // Live vectors in a fresh Rows, of the right kind for `expected` of them. Under `writers`.
  Status Rebuild(int64_t expected) {
    std::unique_ptr<Rows> fresh;
    KVASIR_RETURN_IF_ERROR(Guarded([&] {
      fresh = std::make_unique<Rows>(options, expected > options.flat_limit);
      rows->CopyLiveTo(fresh.get());
    }));
    std::unique_lock lock(mutex);
    rows.swap(fresh);
    lock.unlock();
    return Status::Ok();  // the old rows die here, outside the lock
  }

  Status CheckAdd(std::span<const int64_t> ids, std::span<const float> vectors) const {
    if (vectors.size() != ids.size() * static_cast<size_t>(options.dimension)) {
      return InvalidArgument("vector index: " + std::to_string(vectors.size()) + " values for " +
                             std::to_string(ids.size()) + " vectors of " +
                             std::to_string(options.dimension));
    }
    if (!AllFinite(vectors)) return InvalidArgument("vector index: a value is not finite");
    std::unordered_set<int64_t> seen;
    for (const int64_t id : ids) {
      if (!rows->Holds(id) && seen.insert(id).second) continue;
      return {StatusCode::kAlreadyExists,
              "vector index: id " + std::to_string(id) + " is there already"};
    }
    return Status::Ok();
  }
};

VectorIndex::VectorIndex(std::unique_ptr<State> state) : state_(std::move(state)) {}
VectorIndex::~VectorIndex() = default;

Result<std::unique_ptr<VectorIndex>> VectorIndex::Create(const VectorIndexOptions& options) {
  KVASIR_RETURN_IF_ERROR(CheckOptions(options));
  auto state = std::make_unique<State>();
  state->options = options;
  KVASIR_RETURN_IF_ERROR(Guarded([&] { state->rows = std::make_unique<Rows>(options, false); }));
  return std::unique_ptr<VectorIndex>(new VectorIndex(std::move(state)));
}

Status VectorIndex::Add(std::span<const int64_t> ids, std::span<const float> vectors) {
  std::lock_guard writer(state_->writers);
  KVASIR_RETURN_IF_ERROR(state_->CheckAdd(ids, vectors));
  const int64_t after = state_->rows->live() + static_cast<int64_t>(ids.size());
  if (!state_->rows->hnsw() && after > state_->options.flat_limit) {
    KVASIR_RETURN_IF_ERROR(state_->Rebuild(after));
  }
  std::unique_lock lock(state_->mutex);
  return Guarded([&] { state_->rows->Add(ids, vectors.data()); });
}

int64_t VectorIndex::Remove(std::span<const int64_t> ids) {
  std::lock_guard writer(state_->writers);
  int64_t removed = 0;
  {
    std::unique_lock lock(state_->mutex);
    for (const int64_t id : ids) removed += state_->rows->Remove(id) ? 1 : 0;
  }
  const Rows& rows = *state_->rows;
  // A failed sweep (no memory) leaves the index correct, only larger; the next removal tries again.
  if (rows.dead() * 3 > rows.total()) (void)state_->Rebuild(rows.live()).ok();
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
  const Rows& rows = *state_->rows;
  const auto wanted = static_cast<size_t>(std::min<int64_t>(k, rows.live()));
  std::vector<VectorHit> hits;
  if (wanted == 0) return hits;
  KVASIR_RETURN_IF_ERROR(Guarded([&] {
    if (rows.hnsw() && !filter) {
      hits = rows.Walk(query.data(), wanted, state_->options.hnsw_search_candidates);
      if (hits.size() == wanted) return;
    }
    hits = rows.Scan(query.data(), wanted, filter);
  }));
  return hits;
}

int64_t VectorIndex::size() const {
  std::shared_lock lock(state_->mutex);
  return state_->rows->live();
}

bool VectorIndex::approximate() const {
  std::shared_lock lock(state_->mutex);
  return state_->rows->hnsw();
}

size_t VectorIndex::bytes() const {
  std::shared_lock lock(state_->mutex);
  return state_->rows->bytes();
}

}  // namespace kvasir
