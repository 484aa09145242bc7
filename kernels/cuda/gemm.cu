// Gemm by cuBLASLt, with algorithms chosen by trial (gemm_choice.h): at start for the shapes and
// numbers of rows that are expected, and otherwise when one is first met. That takes some
// milliseconds, once in the life of a backend; while a stream is being captured nothing can be
// tried, and the algorithm that says what the bits are does.
#include <map>
#include <utility>

#include "kernels/cuda/gemm_trials.cuh"

namespace kvasir::cuda {
namespace {

struct Plan {
  CublasProduct product;
  Algorithm algorithm = {};
};

// Rows of the product whose favourite algorithm says what the bits are.
constexpr int64_t kReferenceRows = 2048;

class CublasGemm final : public Gemm {
 public:
  Status Init() { return cublas_.Init(); }

  Status Multiply(Stream stream, const GemmArgs& args) override {
    KVASIR_ASSIGN_OR_RETURN(const Plan* plan, PlanFor(stream, args));
    return plan->product.Run(stream, plan->algorithm,
                             {args.weight, args.x, args.out, args.accumulate});
  }

  // For outputs that begin at a multiple of 16 bytes, as those of whole matrices do.
  Status Prepare(Stream stream, const uint16_t* weight, int64_t n, int64_t k,
                 int64_t most_rows) override {
    GemmArgs args;
    args.weight = weight;
    args.n = n;
    args.k = k;
    for (const int64_t rows : RowBuckets(most_rows)) {
      args.rows = rows;
      bool keep = true;
      KVASIR_RETURN_IF_ERROR(AlgorithmFor(stream, args, &keep).status());
    }
    return Status::Ok();
  }

 private:
  Result<const Plan*> PlanFor(Stream stream, const GemmArgs& args) {
    const ProductShape shape = ShapeOf(args);
    const auto found = plans_.find(shape);
    if (found != plans_.end()) return Pointer(found->second);
    bool keep = true;
    Plan plan;
    KVASIR_ASSIGN_OR_RETURN(plan.algorithm, AlgorithmFor(stream, args, &keep));
    KVASIR_ASSIGN_OR_RETURN(plan.product, CublasProduct::Create(cublas_, shape));
    KVASIR_RETURN_IF_ERROR(MakeRunnable(&plan));
    constexpr size_t kMostPlans = 4096;  // every length of a prompt makes some
    if (plans_.size() >= kMostPlans) plans_.clear();
    if (keep) return Pointer(plans_.emplace(shape, std::move(plan)).first->second);
    last_ = std::move(plan);
    return Pointer(last_);
  }
  static const Plan* Pointer(const Plan& plan) { return &plan; }

  // Algorithms are chosen for round numbers of rows and outputs that lie well; where one does not
  // do for the product at hand, the library's proposal for it is taken.
  Status MakeRunnable(Plan* plan) const {
    if (plan->product.Runs(plan->algorithm)) return Status::Ok();
    KVASIR_ASSIGN_OR_RETURN(plan->algorithm, FirstProposal(plan->product));
    return Status::Ok();
  }

  static Result<Algorithm> FirstProposal(const CublasProduct& product) {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<Algorithm> proposals, product.Proposals());
    if (proposals.empty()) return Internal("cuBLASLt: no algorithm for a product");
    return proposals.front();
  }

  Result<Algorithm> AlgorithmFor(Stream stream, const GemmArgs& args, bool* keep) {
    const ProductShape key = {args.n, args.k, RowBucket(args.rows), 0, ShapeOf(args).aligned};
    const auto found = choices_.find(key);
    if (found != choices_.end()) return Algorithm(found->second);
    KVASIR_ASSIGN_OR_RETURN(const Algorithm reference, Reference(args.n, args.k));
    *keep = !IsCapturing(stream);
    if (!*keep) return Algorithm(reference);
    KVASIR_ASSIGN_OR_RETURN(const Algorithm chosen, Choose(stream, args, key, reference));
    choices_.emplace(key, chosen);
    return Algorithm(chosen);
  }

  Result<Algorithm> Reference(int64_t n, int64_t k) {
    const auto found = references_.find({n, k});
    if (found != references_.end()) return Algorithm(found->second);
    KVASIR_ASSIGN_OR_RETURN(const CublasProduct product,
                            CublasProduct::Create(cublas_, {n, k, kReferenceRows, n, true}));
    KVASIR_ASSIGN_OR_RETURN(const Algorithm reference, FirstProposal(product));
    references_.emplace(std::make_pair(n, k), reference);
    return Algorithm(reference);
  }

  Result<Algorithm> Choose(Stream stream, const GemmArgs& args, const ProductShape& key,
                           const Algorithm& reference) const {
    CublasTrials trials(cublas_, stream, args.weight);
    const Status prepared = trials.Prepare(ShapeOf(args), key.rows, reference);
    if (prepared.code() == StatusCode::kResourceExhausted) return Algorithm(reference);
    KVASIR_RETURN_IF_ERROR(prepared);
    KVASIR_ASSIGN_OR_RETURN(const int best, ChooseAlgorithm(trials));
    return best < 0 ? Algorithm(reference) : Algorithm(trials.candidate(best));
  }

  static bool IsCapturing(Stream stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaError_t error = cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
    return error == cudaSuccess && status != cudaStreamCaptureStatusNone;
  }

  Cublas cublas_;
  std::map<std::pair<int64_t, int64_t>, Algorithm> references_;  // by n, k
  std::map<ProductShape, Algorithm> choices_;                    // by bucket; out_stride is 0
  std::map<ProductShape, Plan> plans_;
  Plan last_;  // the one that is not kept
};

}  // namespace

Result<std::unique_ptr<Gemm>> CreateGemm() {
  auto gemm = std::make_unique<CublasGemm>();
  KVASIR_RETURN_IF_ERROR(gemm->Init());
  return std::unique_ptr<Gemm>(std::move(gemm));
}

}  // namespace kvasir::cuda
