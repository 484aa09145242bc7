#include <string>
#include <utility>

#include "kernels/cuda/cublas_product.cuh"

namespace kvasir::cuda {

Status CublasStatus(const char* what, cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return Status::Ok();
  std::string message = "cuBLASLt: ";
  return Internal(message.append(what).append(": ").append(cublasLtGetStatusString(status)));
}

ProductShape ShapeOf(const GemmArgs& args) {
  return {args.n, args.k, args.rows, args.out_stride,
          reinterpret_cast<uintptr_t>(args.out) % 16 == 0};
}

Cublas::~Cublas() {
  FreeDeviceMemory(workspace_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

Status Cublas::Init() {
  KVASIR_RETURN_IF_ERROR(CublasStatus("start", cublasLtCreate(&handle_)));
  KVASIR_ASSIGN_OR_RETURN(workspace_, AllocateDeviceMemory(kCublasWorkspaceBytes));
  return Status::Ok();
}

Result<CublasProduct::Layout> CublasProduct::LayoutOf(cudaDataType_t type, int64_t rows,
                                                      int64_t cols, int64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  KVASIR_RETURN_IF_ERROR(
      CublasStatus("layout", cublasLtMatrixLayoutCreate(&layout, type, static_cast<uint64_t>(rows),
                                                        static_cast<uint64_t>(cols), stride)));
  return Layout(layout);
}

Result<CublasProduct::Operation> CublasProduct::MakeOperation() {
  cublasLtMatmulDesc_t made = nullptr;
  KVASIR_RETURN_IF_ERROR(
      CublasStatus("operation", cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
  Operation operation(made);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  KVASIR_RETURN_IF_ERROR(
      CublasStatus("operation", cublasLtMatmulDescSetAttribute(made, CUBLASLT_MATMUL_DESC_TRANSA,
                                                               &transposed, sizeof transposed)));
  return Result<Operation>(std::move(operation));
}

Result<CublasProduct> CublasProduct::Create(const Cublas& cublas, const ProductShape& shape) {
  CublasProduct product;
  product.cublas_ = &cublas;
  product.aligned_ = shape.aligned;
  KVASIR_ASSIGN_OR_RETURN(product.operation_, MakeOperation());
  KVASIR_ASSIGN_OR_RETURN(product.weight_, LayoutOf(CUDA_R_16BF, shape.k, shape.n, shape.k));
  KVASIR_ASSIGN_OR_RETURN(product.x_, LayoutOf(CUDA_R_16BF, shape.k, shape.rows, shape.k));
  KVASIR_ASSIGN_OR_RETURN(product.out_,
                          LayoutOf(CUDA_R_32F, shape.n, shape.rows, shape.out_stride));
  return Result<CublasProduct>(std::move(product));
}

Result<CublasProduct::Preference> CublasProduct::MakePreference() const {
  cublasLtMatmulPreference_t made = nullptr;
  KVASIR_RETURN_IF_ERROR(CublasStatus("preference", cublasLtMatmulPreferenceCreate(&made)));
  Preference preference(made);
  const auto set = [made](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    return CublasStatus(
        "preference", cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof value));
  };
  KVASIR_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kCublasWorkspaceBytes));
  const uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
  KVASIR_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, none));
  const uint32_t alignment = aligned_ ? 16 : 4;
  KVASIR_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment));
  KVASIR_RETURN_IF_ERROR(set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment));
  return Result<Preference>(std::move(preference));
}

Result<std::vector<Algorithm>> CublasProduct::Proposals() const {
  KVASIR_ASSIGN_OR_RETURN(const Preference preference, MakePreference());
  cublasLtMatmulHeuristicResult_t found[kMostProposals];
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      cublas_->handle(), operation_.get(), weight_.get(), x_.get(), out_.get(), out_.get(),
      preference.get(), kMostProposals, found, &count);
  std::vector<Algorithm> proposals;
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return proposals;
  KVASIR_RETURN_IF_ERROR(CublasStatus("proposals", status));
  for (int i = 0; i < count; ++i) {
    if (found[i].state == CUBLAS_STATUS_SUCCESS) proposals.push_back({found[i].algo});
  }
  return proposals;
}

bool CublasProduct::Runs(const Algorithm& algorithm) const {
  cublasLtMatmulHeuristicResult_t result;
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(cublas_->handle(), operation_.get(), weight_.get(), x_.get(),
                              out_.get(), out_.get(), &algorithm.value, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kCublasWorkspaceBytes;
}

Status CublasProduct::Run(Stream stream, const Algorithm& algorithm,
                          const ProductOperands& operands) const {
  const float alpha = 1.0f, beta = operands.accumulate ? 1.0f : 0.0f;
  return CublasStatus(
      "product",
      cublasLtMatmul(cublas_->handle(), operation_.get(), &alpha, operands.weight, weight_.get(),
                     operands.x, x_.get(), &beta, operands.out, out_.get(), operands.out,
                     out_.get(), &algorithm.value, cublas_->workspace(), kCublasWorkspaceBytes,
                     static_cast<cudaStream_t>(stream)));
}

}  // namespace kvasir::cuda
