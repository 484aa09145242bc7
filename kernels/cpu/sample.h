// Backend::Sample on the CPU: what TokenDrawer draws, with weights in fp32 and without sorting more
// than a cut needs.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/core/draw.h"
#include "kernels/core/tensor_view.h"

namespace kvasir {

class ThreadPool;
struct ElementwiseOps;

// Draws from one row at a time. Holds 4 bytes a token of the vocabulary. Not thread-safe.
class RowDrawer {
 public:
  explicit RowDrawer(const ElementwiseOps& ops) : ops_(&ops) {}

  // logits [V]; -1 if one is NaN or +infinity, or if all are -infinity.
  int32_t Draw(std::span<const float> logits, const DrawParams& params);

 private:
  struct Candidate {
    int32_t id;
    float logit;
    double weight;
  };
  static bool IsHigher(const Candidate& a, const Candidate& b);

  int32_t FindBest();
  void Weigh(float highest, float temperature);
  double Total() const;
  // Candidates of at least this logit or weight, by ids.
  void GatherByLogit(float least);
  void GatherByWeight(double least);
  void KeepTopK(int32_t k);
  void KeepTopP(double goal);
  int32_t PickFromAll(double uniform) const;
  int32_t PickFromCandidates(double uniform);

  const ElementwiseOps* ops_;
  std::span<const float> logits_;    // the row at hand
  std::vector<float> run_highest_;   // of each run of kRun logits
  std::vector<double> run_weights_;  // sum of each run's weights
  std::vector<float> weights_;       // [V], the highest logit's is 1
  std::vector<Candidate> candidates_;
};

// One drawer a thread.
void CpuSample(ThreadPool& threads, std::span<RowDrawer> drawers, const TensorView& logits,
               std::span<const RowDraw> draws, std::span<int32_t> tokens);

}  // namespace kvasir
