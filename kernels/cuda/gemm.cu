// Gemm by cuBLASLt. Row-major [rows][n] = x * weight^T is, in its column order, weight^T
// (transposed) times x^T: both operands lie along k.
#include <cublasLt.h>

#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/cuda/gemm.h"

namespace kvasir::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;

Status Done(const char* what, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return Status::Ok();
  std::string message = "cuBLASLt: ";
  return Internal(message.append(what).append(": ").append(cublasLtGetStatusString(status)));
}

struct DestroyLayout {
  void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
};
struct DestroyOperation {
  void operator()(cublasLtMatmulDesc_t operation) const { cublasLtMatmulDescDestroy(operation); }
};
struct DestroyPreference {
  void operator()(cublasLtMatmulPreference_t p) const { cublasLtMatmulPreferenceDestroy(p); }
};
template <typename T, typename Destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<T>, Destroy>;
using Layout = Owned<cublasLtMatrixLayout_t, DestroyLayout>;
using Operation = Owned<cublasLtMatmulDesc_t, DestroyOperation>;
using Preference = Owned<cublasLtMatmulPreference_t, DestroyPreference>;

Result<Layout> LayoutOf(cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  KVASIR_RETURN_IF_ERROR(
      Done("layout", cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows),
                                                static_cast<uint64_t>(cols), stride)));
  return Layout(layout);
}

// One shape with its algorithm.
struct Plan {
  Operation operation;
  Layout weight, x, out;
  cublasLtMatmulAlgo_t algorithm = {};
};

class CublasGemm final : public Gemm {
 public:
  ~CublasGemm() override {
    FreeDeviceMemory(workspace_);
    if (handle_ != nullptr) cublasLtDestroy(handle_);
  }
  Status Init() {
    KVASIR_RETURN_IF_ERROR(Done("start", cublasLtCreate(&handle_)));
    KVASIR_ASSIGN_OR_RETURN(workspace_, AllocateDeviceMemory(kWorkspaceBytes));
    return Status::Ok();
  }

  Status Multiply(Stream stream, const GemmArgs& args) override {
    KVASIR_ASSIGN_OR_RETURN(const Plan* plan, PlanFor(args));
    const float alpha = 1.0f, beta = args.accumulate ? 1.0f : 0.0f;
    return Done("product",
                cublasLtMatmul(handle_, plan->operation.get(), &alpha, args.weight,
                               plan->weight.get(), args.x, plan->x.get(), &beta, args.out,
                               plan->out.get(), args.out, plan->out.get(), &plan->algorithm,
                               workspace_, kWorkspaceBytes, static_cast<cudaStream_t>(stream)));
  }

 private:
  Result<const Plan*> PlanFor(const GemmArgs& args) {
    const auto key = std::make_tuple(args.n, args.k, args.rows, args.out_stride);
    const auto found = plans_.find(key);
    if (found != plans_.end()) {
      const Plan* const known = &found->second;
      return known;
    }
    KVASIR_ASSIGN_OR_RETURN(Plan plan, MakePlan(args));
    constexpr size_t kMostPlans = 4096;  // every length of a prompt makes some
    if (plans_.size() >= kMostPlans) plans_.clear();
    const Plan* const kept = &plans_.emplace(key, std::move(plan)).first->second;
    return kept;
  }

  Result<Plan> MakePlan(const GemmArgs& args) {
    Plan plan;
    cublasLtMatmulDesc_t operation = nullptr;
    KVASIR_RETURN_IF_ERROR(
        Done("operation", cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
    plan.operation.reset(operation);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    KVASIR_RETURN_IF_ERROR(
        Done("operation", cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                         &transposed, sizeof transposed)));
    KVASIR_ASSIGN_OR_RETURN(plan.weight, LayoutOf(CUDA_R_16BF, args.k, args.n, args.k));
    KVASIR_ASSIGN_OR_RETURN(plan.x, LayoutOf(CUDA_R_16BF, args.k, args.rows, args.k));
    KVASIR_ASSIGN_OR_RETURN(plan.out, LayoutOf(CUDA_R_32F, args.n, args.rows, args.out_stride));
    KVASIR_RETURN_IF_ERROR(ChooseAlgorithm(&plan));
    return Result<Plan>(std::move(plan));
  }

  Status ChooseAlgorithm(Plan* plan) {
    cublasLtMatmulPreference_t preference = nullptr;
    KVASIR_RETURN_IF_ERROR(Done("preference", cublasLtMatmulPreferenceCreate(&preference)));
    const Preference owned(preference);
    KVASIR_RETURN_IF_ERROR(Done(
        "preference",
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspaceBytes, sizeof kWorkspaceBytes)));
    cublasLtMatmulHeuristicResult_t best;
    int count = 0;
    KVASIR_RETURN_IF_ERROR(Done(
        "choice", cublasLtMatmulAlgoGetHeuristic(handle_, plan->operation.get(), plan->weight.get(),
                                                 plan->x.get(), plan->out.get(), plan->out.get(),
                                                 preference, 1, &best, &count)));
    if (count == 0) return Internal("cuBLASLt: no algorithm for a product");
    plan->algorithm = best.algo;
    return Status::Ok();
  }

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<std::tuple<int64_t, int64_t, int64_t, int64_t>, Plan> plans_;
};

}  // namespace

Result<std::unique_ptr<Gemm>> CreateGemm() {
  auto gemm = std::make_unique<CublasGemm>();
  KVASIR_RETURN_IF_ERROR(gemm->Init());
  return std::unique_ptr<Gemm>(std::move(gemm));
}

}  // namespace kvasir::cuda
