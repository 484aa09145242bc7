// VectorRows: what VectorIndex searches: vectors by row, dead ones included. The first rows lie in
// an HNSW graph, if there is one, the rest (the tail) in a flat array. FAISS is known only here.
//
// Graphs are immutable once adopted, so that GraphBuilder extends a copy beside searches.
// Not thread-safe but for const methods beside each other. May throw std::bad_alloc and FAISS's
// exceptions: callers run it through Guarded of retrieval/faiss_guard.h.
#pragma once

#include <faiss/IndexFlat.h>
#include <faiss/IndexHNSW.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "kernels/core/status.h"
#include "retrieval/vector_index.h"

namespace kvasir {

class VectorRows {
 public:
  explicit VectorRows(const VectorIndexOptions& options);

  int64_t total() const { return static_cast<int64_t>(ids_.size()); }
  int64_t live() const { return total() - dead_; }
  int64_t graph_rows() const { return graph_ ? graph_->ntotal : 0; }
  int64_t tail_rows() const { return total() - graph_rows(); }
  int64_t dead() const { return dead_; }
  bool Holds(int64_t id) const { return row_of_.contains(id); }
  size_t bytes() const;

  void Add(std::span<const int64_t> ids, const float* vectors);  // to the tail
  bool Remove(int64_t id);                                       // marks the row dead
  VectorRows LiveOnly() const;                                   // without a graph

  // Exact: all live rows that the filter lets through.
  std::vector<VectorHit> Scan(const float* query, size_t k,
                              const VectorIndex::Filter& filter) const;
  // The graph by a walk, the tail exactly. May find fewer than k although there are more.
  std::vector<VectorHit> Walk(const float* query, size_t k) const;

 private:
  friend class GraphBuilder;
  class BestHits;
  void ScanRange(int64_t first, int64_t end, const float* query, const VectorIndex::Filter& filter,
                 BestHits* best) const;
  const float* Vector(int64_t row) const;
  int64_t EndOfRun(int64_t row) const;  // rows up to here lie behind each other in memory

  VectorIndexOptions options_;
  std::shared_ptr<const faiss::IndexHNSW> graph_;  // rows [0, graph_rows())
  std::shared_ptr<faiss::IndexFlatIP> tail_;       // the rest; never null
  std::vector<int64_t> ids_;                       // [rows]
  std::vector<uint8_t> is_dead_;                   // [rows]
  int64_t dead_ = 0;
  std::unordered_map<int64_t, int64_t> row_of_;  // id -> live row
};

// Makes a graph of all rows there are, in three steps:
//   Snapshot  with the rows at rest: takes what the graph needs
//   Build     beside searches and changes: minutes
//   Adopt     with the rows at rest: swaps the graph in; later additions stay in the tail
// Between Snapshot and Adopt rows may be added and marked dead, nothing else.
class GraphBuilder {
 public:
  // Extends a copy of the present graph by the tail, or, where a third of it is dead, starts anew.
  void Snapshot(const VectorRows& rows);
  void Build(const std::atomic<bool>& stop);
  void Adopt(VectorRows* rows);

 private:
  VectorIndexOptions options_;
  int64_t snapshot_rows_ = 0;
  std::shared_ptr<const faiss::IndexHNSW> base_;  // to extend, or null
  std::vector<int64_t> old_rows_;                 // of the new graph's rows, in order
  std::vector<float> vectors_;                    // to add to the base
  std::shared_ptr<const faiss::IndexHNSW> graph_;
};

}  // namespace kvasir
