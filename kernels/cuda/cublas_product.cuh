// One product's description for cuBLASLt, and the calls on it. Row-major [rows][n] = x * weight^T
// is, in the library's column order, weight^T (transposed) times x^T: both operands lie along k.
//
// Algorithms that split a sum over several blocks are never proposed. Not thread-safe.
#pragma once

#include <cublasLt.h>

#include <compare>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels/cuda/gemm.h"

namespace kvasir::cuda {

inline constexpr size_t kCublasWorkspaceBytes = size_t{32} << 20;

Status CublasStatus(const char* what, cublasStatus_t status);

// How the library computes a product; a name for its own nameless type.
struct Algorithm {
  cublasLtMatmulAlgo_t value = {};
};

struct ProductShape {
  int64_t n = 0, k = 0, rows = 0, out_stride = 0;
  bool aligned = true;  // out begins at a multiple of 16 bytes

  auto operator<=>(const ProductShape&) const = default;
};
ProductShape ShapeOf(const GemmArgs& args);

// Where the operands lie.
struct ProductOperands {
  const void* weight = nullptr;
  const void* x = nullptr;
  float* out = nullptr;
  bool accumulate = false;
};

// Handle and workspace; workspaces are used in the order of one stream.
class Cublas {
 public:
  Cublas() = default;
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;
  ~Cublas();
  Status Init();
  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_; }

 private:
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
};

class CublasProduct {
 public:
  static Result<CublasProduct> Create(const Cublas& cublas, const ProductShape& shape);

  // The library's favourite first; empty = it has none.
  static constexpr int kMostProposals = 8;
  Result<std::vector<Algorithm>> Proposals() const;
  bool Runs(const Algorithm& algorithm) const;
  Status Run(Stream stream, const Algorithm& algorithm, const ProductOperands& operands) const;

 private:
  struct Destroy {
    void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
    void operator()(cublasLtMatmulDesc_t operation) const { cublasLtMatmulDescDestroy(operation); }
    void operator()(cublasLtMatmulPreference_t p) const { cublasLtMatmulPreferenceDestroy(p); }
  };
  template <typename T>
  using Owned = std::unique_ptr<std::remove_pointer_t<T>, Destroy>;
  using Layout = Owned<cublasLtMatrixLayout_t>;
  using Operation = Owned<cublasLtMatmulDesc_t>;
  using Preference = Owned<cublasLtMatmulPreference_t>;

  static Result<Layout> LayoutOf(cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride);
  static Result<Operation> MakeOperation();
  Result<Preference> MakePreference() const;

  const Cublas* cublas_ = nullptr;
  bool aligned_ = true;
  Operation operation_;
  Layout weight_, x_, out_;
};

}  // namespace kvasir::cuda
