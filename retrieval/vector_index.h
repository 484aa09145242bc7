// VectorIndex: the nearest unit vectors by inner product.
//
// Exact (flat) up to `flat_limit` vectors, an HNSW graph above. The graph is built and later
// extended on a thread of the index's own, at low priority (1-3 ms a vector); until it is ready,
// and for vectors added since, searches are exact. Removal marks rows dead; they are swept out when
// they are a third of the index. Nothing is read from or written to disk: the owner fills it at
// start. FAISS never starts an OpenMP team and never enters BLAS.
// Memory: the vectors and, above the limit, 8 bytes a link; twice that while a graph is built.
// Thread safety: all methods from any thread; writers wait for each other, searches run in
// parallel. The destructor stops a build within a second.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

struct VectorIndexOptions {
  int32_t dimension = 384;
  // Vectors up to which every search looks at all of them. 50,000 x 384 floats are 77 MB and about
  // 10 ms a search.
  int64_t flat_limit = 50'000;
  // HNSW: links a node, and candidates kept while building and searching. More = better recall,
  // more memory (8 bytes a link) and time.
  int32_t hnsw_links = 32;
  int32_t hnsw_build_candidates = 80;
  int32_t hnsw_search_candidates = 128;
};

struct VectorHit {
  int64_t id = 0;
  float score = 0.0f;  // inner product

  friend bool operator==(const VectorHit&, const VectorHit&) = default;
};

class VectorIndex {
 public:
  using Filter = std::function<bool(int64_t id)>;

  static Result<std::unique_ptr<VectorIndex>> Create(const VectorIndexOptions& options);
  ~VectorIndex();

  // vectors: [ids][dimension], finite. kAlreadyExists: an id that is there already or twice in the
  // call; then nothing is added.
  Status Add(std::span<const int64_t> ids, std::span<const float> vectors);
  // Unknown ids are left alone. Returns how many were removed.
  int64_t Remove(std::span<const int64_t> ids);

  // At most k hits, best first, equal scores by ascending id. `filter` (may be null) must be pure;
  // filtered searches are exact at any size.
  Result<std::vector<VectorHit>> Search(std::span<const float> query, int32_t k,
                                        const Filter& filter = nullptr) const;

  int64_t size() const;      // live vectors
  bool approximate() const;  // a graph is in use
  void WaitUntilBuilt();     // returns when no graph is being built: for tests and benchmarks
  size_t bytes() const;      // resident, about

 private:
  struct State;
  explicit VectorIndex(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kvasir
