// Products of few rows: GEMV against the library, and where the one begins to be slower.
#include <vector>

#include "tests/gpu/bench/card.h"
#include "tests/gpu/bench/random_model.h"

namespace kvasir::bench {
namespace {

struct Product {
  DType dtype = DType::kBF16;
  int64_t n = 0, k = 0;
};

class ProductTimer {
 public:
  static Result<ProductTimer> Create(const Bench& bench, CudaCompute compute,
                                     const Product& product, int64_t most_rows) {
    ProductTimer timer;
    timer.product_ = product;
    KVASIR_ASSIGN_OR_RETURN(timer.backend_, OpenCard(compute));
    Backend& backend = *timer.backend_;
    const WeightBank bank(product.dtype, product.n * product.k, 1.0f / 64, 7);
    KVASIR_ASSIGN_OR_RETURN(timer.weight_,
                            backend.Pack(product.dtype, bank.At(0), product.n, product.k));
    KVASIR_ASSIGN_OR_RETURN(timer.x_, backend.Allocate(size_t{4} * most_rows * product.k));
    KVASIR_ASSIGN_OR_RETURN(timer.out_, backend.Allocate(size_t{4} * most_rows * product.n));
    const std::vector<float> x = RandomValues(most_rows * product.k, 9);
    backend.Upload(x.data(), timer.x_->data(), x.size() * sizeof(float));
    KVASIR_ASSIGN_OR_RETURN(timer.finisher_, Finisher::Create(backend));
    return Result<ProductTimer>(std::move(timer));
  }

  Result<double> Seconds(const Bench& bench, int64_t rows) const {
    const TensorView x = F32View(x_->f32(), rows, product_.k);
    const TensorView out = F32View(out_->f32(), rows, product_.n);
    return TimeOf(
        bench,
        [&] {
          backend_->MatMul(x, *weight_, nullptr, false, out);
          return Status::Ok();
        },
        [&] { return finisher_.Finish(); });
  }
  double bytes() const { return static_cast<double>(weight_->bytes()); }

 private:
  Product product_;
  std::shared_ptr<Backend> backend_;
  std::unique_ptr<PackedWeight> weight_;
  std::unique_ptr<Buffer> x_, out_;
  Finisher finisher_;
};

Status Compare(Bench& bench, const Product& product) {
  const int64_t most = bench.smoke ? 16 : 256;
  KVASIR_ASSIGN_OR_RETURN(const ProductTimer gemv,
                          ProductTimer::Create(bench, CudaCompute::kF32, product, most));
  KVASIR_ASSIGN_OR_RETURN(const ProductTimer library,
                          ProductTimer::Create(bench, CudaCompute::kBf16, product, most));
  const std::string name = TypeName(product.dtype) + " [" + std::to_string(product.n) + "][" +
                           std::to_string(product.k) + "] ";
  int64_t crossover = 0;
  for (int64_t rows = 1; rows <= most; rows *= 2) {
    const std::string of = name + std::to_string(rows) + " rows, ";
    KVASIR_ASSIGN_OR_RETURN(const double first, gemv.Seconds(bench, rows));
    bench.report.AddRate(of + "GEMV", gemv.bytes(), first, "GB/s");
    if (rows <= 8) continue;  // there the library is never asked
    KVASIR_ASSIGN_OR_RETURN(const double second, library.Seconds(bench, rows));
    bench.report.AddRate(of + "library", library.bytes(), second, "GB/s");
    if (crossover == 0 && second < first) crossover = rows;
  }
  bench.report.Add(name + "the library is faster from", static_cast<double>(crossover), "rows");
  return Status::Ok();
}

}  // namespace

Status RunProducts(Bench& bench) {
  const int64_t n = bench.smoke ? 64 : 14336, k = bench.smoke ? 256 : 4096;
  for (const DType dtype : {DType::kBF16, DType::kQ4_0}) {
    KVASIR_RETURN_IF_ERROR(Compare(bench, {dtype, n, k}));
  }
  return Status::Ok();
}

}  // namespace kvasir::bench
