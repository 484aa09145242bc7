// The library's product as a plain loop, with its trials counted (device.h).
#include "kernels/cuda/gemm.h"

#include <set>
#include <tuple>

#include "kernels/core/dtype.h"
#include "kernels/cuda/gemm_choice.h"
#include "tests/kernels/cuda_emulation/checked.h"
#include "tests/kernels/cuda_emulation/device.h"
#include "tests/kernels/cuda_emulation/streams.h"

namespace kvasir::cuda {
namespace {

class PlainGemm final : public Gemm {
 public:
  Status Multiply(Stream stream, const GemmArgs& args) override {
    Choose(args.n, args.k, RowBucket(args.rows));
    emulation::QueueWork(stream, [args] { Run(args); });
    return Status::Ok();
  }
  Status Prepare(Stream, const uint16_t*, int64_t n, int64_t k, int64_t most_rows) override {
    for (const int64_t rows : RowBuckets(most_rows)) Choose(n, k, rows);
    return Status::Ok();
  }

 private:
  void Choose(int64_t n, int64_t k, int64_t bucket) {
    if (chosen_.emplace(n, k, bucket).second) emulation::CountTrial();
  }
  static void Run(const GemmArgs& args) {
    const Global<const uint16_t> weight(args.weight), x(args.x);
    const Global<float> out(args.out);
    for (int64_t row = 0; row < args.rows; ++row) {
      for (int64_t o = 0; o < args.n; ++o) {
        double sum = 0;
        for (int64_t i = 0; i < args.k; ++i) {
          sum += double{BF16ToF32(x[row * args.k + i])} * BF16ToF32(weight[o * args.k + i]);
        }
        float& to = out[row * args.out_stride + o];
        to = static_cast<float>(args.accumulate ? to + sum : sum);
      }
    }
  }

  std::set<std::tuple<int64_t, int64_t, int64_t>> chosen_;  // n, k, bucket of rows
};

}  // namespace

Result<std::unique_ptr<Gemm>> CreateGemm() {
  return std::unique_ptr<Gemm>(std::make_unique<PlainGemm>());
}

}  // namespace kvasir::cuda
