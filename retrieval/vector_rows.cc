#include "retrieval/vector_rows.h"

#include <faiss/clone_index.h>
#include <faiss/utils/distances.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace kvasir {
namespace {

constexpr int64_t kScanRows = 4096;  // rows scored at once by an exact search: 16 KiB of scores
constexpr int64_t kBuildRows = 256;  // rows a graph grows by between looks at `stop`

bool IsBetter(const VectorHit& a, const VectorHit& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

}  // namespace

// The best k of what is pushed.
class VectorRows::BestHits {
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

VectorRows::VectorRows(const VectorIndexOptions& options)
    : options_(options), tail_(std::make_shared<faiss::IndexFlatIP>(options.dimension)) {}

size_t VectorRows::bytes() const {
  const size_t vectors = ids_.size() * static_cast<size_t>(options_.dimension) * sizeof(float);
  const size_t links = graph_ ? graph_->hnsw.neighbors.size() * sizeof(int32_t) : 0;
  return vectors + links + ids_.size() * 48;  // 48: ids, flags, the hash table's nodes
}

void VectorRows::Add(std::span<const int64_t> ids, const float* vectors) {
  tail_->add(static_cast<int64_t>(ids.size()), vectors);
  for (const int64_t id : ids) {
    row_of_[id] = total();
    ids_.push_back(id);
    is_dead_.push_back(0);
  }
}

bool VectorRows::Remove(int64_t id) {
  const auto found = row_of_.find(id);
  if (found == row_of_.end()) return false;
  is_dead_[static_cast<size_t>(found->second)] = 1;
  row_of_.erase(found);
  ++dead_;
  return true;
}

const float* VectorRows::Vector(int64_t row) const {
  const int64_t graphed = graph_rows();
  if (row >= graphed) return tail_->get_xb() + (row - graphed) * options_.dimension;
  return static_cast<const faiss::IndexFlat*>(graph_->storage)->get_xb() + row * options_.dimension;
}

int64_t VectorRows::EndOfRun(int64_t row) const {
  return row < graph_rows() ? graph_rows() : total();
}

VectorRows VectorRows::LiveOnly() const {
  VectorRows live(options_);
  for (int64_t row = 0; row < total(); ++row) {
    const auto i = static_cast<size_t>(row);
    if (!is_dead_[i]) live.Add(std::span(&ids_[i], 1), Vector(row));
  }
  return live;
}

void VectorRows::ScanRange(int64_t first, int64_t end, const float* query,
                           const VectorIndex::Filter& filter, BestHits* best) const {
  std::vector<float> scores(static_cast<size_t>(std::min(kScanRows, end - first)));
  while (first < end) {
    const int64_t count = std::min({kScanRows, end - first, EndOfRun(first) - first});
    faiss::fvec_inner_products_ny(scores.data(), query, Vector(first),
                                  static_cast<size_t>(options_.dimension),
                                  static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<size_t>(first + i);
      if (is_dead_[row] || (filter && !filter(ids_[row]))) continue;
      best->Push({ids_[row], scores[static_cast<size_t>(i)]});
    }
    first += count;
  }
}

std::vector<VectorHit> VectorRows::Scan(const float* query, size_t k,
                                        const VectorIndex::Filter& filter) const {
  BestHits best(k);
  ScanRange(0, total(), query, filter, &best);
  return std::move(best).Sorted();
}

std::vector<VectorHit> VectorRows::Walk(const float* query, size_t k) const {
  BestHits best(k);
  ScanRange(graph_rows(), total(), query, nullptr, &best);
  // Up to a third of the graph is dead: look for as many more.
  const int64_t wanted = std::min(graph_rows(), 2 * static_cast<int64_t>(k));
  faiss::SearchParametersHNSW parameters;
  parameters.efSearch = std::max(options_.hnsw_search_candidates, static_cast<int32_t>(wanted));
  std::vector<float> scores(static_cast<size_t>(wanted));
  std::vector<faiss::Index::idx_t> rows(static_cast<size_t>(wanted), -1);
  graph_->search(1, query, wanted, scores.data(), rows.data(), &parameters);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || is_dead_[static_cast<size_t>(rows[i])]) continue;
    best.Push({ids_[static_cast<size_t>(rows[i])], scores[i]});
  }
  return std::move(best).Sorted();
}

// ---- GraphBuilder -----------------------------------------------------------------------------

void GraphBuilder::Snapshot(const VectorRows& rows) {
  options_ = rows.options_;
  snapshot_rows_ = rows.total();
  const int64_t graphed = rows.graph_rows();
  const int64_t dead = std::count(rows.is_dead_.begin(), rows.is_dead_.begin() + graphed, 1);
  base_ = dead * 3 > graphed ? nullptr : rows.graph_;
  for (int64_t row = 0; row < snapshot_rows_; ++row) {
    const bool in_base = base_ && row < graphed;
    if (!in_base && rows.is_dead_[static_cast<size_t>(row)]) continue;
    old_rows_.push_back(row);
    if (in_base) continue;
    const float* vector = rows.Vector(row);
    vectors_.insert(vectors_.end(), vector, vector + options_.dimension);
  }
}

void GraphBuilder::Build(const std::atomic<bool>& stop) {
  std::unique_ptr<faiss::IndexHNSW> graph;
  if (base_) {
    std::unique_ptr<faiss::Index> copy(faiss::clone_index(base_.get()));
    // FAISS 1.7.3 gives the base class back, with a copy of the flat storage.
    if (!dynamic_cast<faiss::IndexHNSW*>(copy.get())) throw std::runtime_error("no HNSW copy");
    graph.reset(static_cast<faiss::IndexHNSW*>(copy.release()));
  } else {
    graph = std::make_unique<faiss::IndexHNSWFlat>(options_.dimension, options_.hnsw_links,
                                                   faiss::METRIC_INNER_PRODUCT);
    graph->hnsw.efConstruction = options_.hnsw_build_candidates;
    // FAISS 1.7.3 takes the lower of this and the search parameter, whose default is 16.
    graph->hnsw.efSearch = options_.hnsw_search_candidates;
  }
  const auto rows = static_cast<int64_t>(vectors_.size()) / options_.dimension;
  for (int64_t row = 0; row < rows && !stop; row += kBuildRows) {
    graph->add(std::min(kBuildRows, rows - row), vectors_.data() + row * options_.dimension);
  }
  graph_ = std::move(graph);
}

void GraphBuilder::Adopt(VectorRows* rows) {
  VectorRows next(options_);
  next.graph_ = graph_;
  for (const int64_t old : old_rows_) {
    const auto i = static_cast<size_t>(old);
    const int64_t row = next.total();
    next.ids_.push_back(rows->ids_[i]);
    next.is_dead_.push_back(rows->is_dead_[i]);
    next.dead_ += rows->is_dead_[i];
    if (!rows->is_dead_[i]) next.row_of_[rows->ids_[i]] = row;
  }
  for (int64_t row = snapshot_rows_; row < rows->total(); ++row) {
    const auto i = static_cast<size_t>(row);
    if (!rows->is_dead_[i]) next.Add(std::span(&rows->ids_[i], 1), rows->Vector(row));
  }
  std::swap(*rows, next);
}

}  // namespace kvasir
