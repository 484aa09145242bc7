// What the card gives at most: copies, and the library's product of large bf16 matrices.
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/cuda/gemm.h"
#include "tests/gpu/bench/card.h"

namespace kvasir::bench {
namespace {

class OwnStream {
 public:
  ~OwnStream() {
    if (stream_ != nullptr) cuda::DestroyStream(stream_);
  }
  Status Init() {
    KVASIR_ASSIGN_OR_RETURN(stream_, cuda::CreateStream(false));
    return Status::Ok();
  }
  cuda::Stream get() const { return stream_; }

 private:
  cuda::Stream stream_ = nullptr;
};

Status MeasureCopies(Bench& bench, cuda::Stream stream) {
  const size_t bytes = bench.smoke ? size_t{1} << 16 : size_t{1} << 30;
  KVASIR_ASSIGN_OR_RETURN(const CardMemory from, CardBytes(bytes));
  KVASIR_ASSIGN_OR_RETURN(const CardMemory to, CardBytes(bytes));
  KVASIR_ASSIGN_OR_RETURN(const PinnedMemory host, PinnedBytes(bytes));
  FillRandom(1, host.get(), bytes);
  const auto finish = [&] { return cuda::Synchronize(stream); };
  const auto load = [&] { return cuda::CopyToDevice(from.get(), host.get(), bytes, stream); };
  KVASIR_ASSIGN_OR_RETURN(const double loading, TimeOf(bench, load, finish));
  constexpr size_t kRuns = 16;
  const cuda::Runs runs = {bytes / kRuns, kRuns, bytes / kRuns, bytes / kRuns};
  const auto copy = [&] { return cuda::CopyRuns(to.get(), from.get(), runs, stream); };
  KVASIR_ASSIGN_OR_RETURN(const double copying, TimeOf(bench, copy, finish));
  const auto size = static_cast<double>(bytes);
  bench.ceilings.copy =
      bench.report.AddRate("device copy, read and written", 2 * size, copying, "TB/s");
  bench.report.AddRate("pinned host to device", size, loading, "GB/s");
  return Status::Ok();
}

// bf16 in (-2, 2).
std::vector<uint16_t> RandomBf16(uint64_t seed, int64_t count) {
  std::vector<uint16_t> bits(static_cast<size_t>(count));
  FillRandom(seed, bits.data(), bits.size() * sizeof(uint16_t));
  for (uint16_t& value : bits) value = static_cast<uint16_t>((value & 0x807Fu) | 0x3F80u);
  return bits;
}

Status MeasureProduct(Bench& bench, cuda::Stream stream) {
  const int64_t n = bench.smoke ? 128 : 8192;
  const auto size = static_cast<size_t>(n * n);
  KVASIR_ASSIGN_OR_RETURN(const CardMemory weight, CardBytes(2 * size));
  KVASIR_ASSIGN_OR_RETURN(const CardMemory x, CardBytes(2 * size));
  KVASIR_ASSIGN_OR_RETURN(const CardMemory out, CardBytes(4 * size));
  for (void* const to : {weight.get(), x.get()}) {
    const std::vector<uint16_t> values = RandomBf16(to == x.get() ? 2 : 3, n * n);
    KVASIR_RETURN_IF_ERROR(cuda::CopyToDevice(to, values.data(), 2 * size, stream));
    KVASIR_RETURN_IF_ERROR(cuda::Synchronize(stream));
  }
  KVASIR_ASSIGN_OR_RETURN(const std::unique_ptr<cuda::Gemm> gemm, cuda::CreateGemm());
  cuda::GemmArgs args;
  args.weight = static_cast<const uint16_t*>(weight.get());
  args.x = static_cast<const uint16_t*>(x.get());
  args.out = static_cast<float*>(out.get());
  args.n = args.k = args.rows = args.out_stride = n;
  const auto run = [&] { return gemm->Multiply(stream, args); };
  KVASIR_ASSIGN_OR_RETURN(const double seconds,
                          TimeOf(bench, run, [&] { return cuda::Synchronize(stream); }));
  const double work = 2.0 * static_cast<double>(n) * static_cast<double>(n * n);
  bench.ceilings.matmul = bench.report.AddRate("bf16 product of " + std::to_string(n) + " cubed",
                                               work, seconds, "TFLOP/s");
  return Status::Ok();
}

}  // namespace

Status RunCeilings(Bench& bench) {
  OwnStream stream;
  KVASIR_RETURN_IF_ERROR(stream.Init());
  KVASIR_RETURN_IF_ERROR(MeasureCopies(bench, stream.get()));
  return MeasureProduct(bench, stream.get());
}

}  // namespace kvasir::bench
