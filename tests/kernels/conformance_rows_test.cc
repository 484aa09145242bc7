// Conformance of the row operators: every present backend against the double-precision reference,
// and the reference against formulas written out here.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numbers>

#include "tests/kernels/conformance_fixture.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

using ConformanceRows = Conformance;
class ConformanceFeedForward : public Conformance {};

constexpr int64_t kRows[] = {1, 2, 3, 7, 17, 64, 130};
constexpr int64_t kWidths[] = {1, 2, 15, 16, 17, 63, 64, 80, 100, 576, 1537};

std::vector<float> NormOf(Backend& backend, NormKind kind, const std::vector<float>& x,
                          int64_t rows, int64_t cols, int64_t width,
                          const std::vector<float>& weight, const float* bias) {
  Tensor in(backend, rows, cols, x), out(backend, rows, cols), w(backend, 1, width, weight);
  std::unique_ptr<Tensor> b;
  if (bias != nullptr) {
    b = std::make_unique<Tensor>(backend, 1, width, std::vector<float>(bias, bias + width));
  }
  backend.Norm(kind, in.view(), width, w.view().f32(), b ? b->view().f32() : nullptr, 1e-5f,
               out.view());
  return out.Pull();
}

// A sum of n squares in fp32 has relative error <= n u, half of it after the root; mean, root,
// division and two products add 8 u. The mean of kLayer is off by n u mean|x|, which shifts every
// x by as much before it is scaled.
void ExpectNorm(NormKind kind, const std::vector<float>& got, const std::vector<float>& want,
                const std::vector<float>& x, int64_t width, const std::vector<float>& weight,
                const float* bias) {
  const auto n = static_cast<size_t>(width);
  for (size_t begin = 0; begin < got.size(); begin += n) {
    double absolute = 0, sum = 0, squares = 0;
    for (size_t i = 0; i < n; ++i) {
      absolute += std::abs(x[begin + i]);
      sum += x[begin + i];
    }
    const double mean = kind == NormKind::kLayer ? sum / static_cast<double>(n) : 0;
    for (size_t i = 0; i < n; ++i) squares += std::pow(x[begin + i] - mean, 2);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    const double shift =
        kind == NormKind::kLayer ? static_cast<double>(n + 2) * kUnit * absolute / n * scale : 0;
    for (size_t i = 0; i < n; ++i) {
      const double b = bias != nullptr ? std::abs(bias[i]) : 0;
      const double value = std::abs(want[begin + i]) + b;
      const double tolerance = (static_cast<double>(n) / 2 + 8) * kUnit * value +
                               2 * shift * std::abs(weight[i]) + 1e-30;
      ASSERT_NEAR(got[begin + i], want[begin + i], tolerance) << "element " << i << " of " << n;
    }
  }
}

TEST_P(ConformanceRows, Norm) {
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    for (const int64_t width : kWidths) {
      const int64_t rows = kRows[random_() % std::size(kRows)], groups = 1 + random_() % 3;
      const int64_t cols = width * groups;
      const auto x = Normal(static_cast<size_t>(rows * cols), random_, 3.0f);
      const auto weight = Normal(static_cast<size_t>(width), random_);
      const auto bias = Normal(static_cast<size_t>(width), random_);
      for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
        SCOPED_TRACE(testing::Message() << rows << " x " << cols << " by " << width);
        ExpectNorm(kind, NormOf(*backend_, kind, x, rows, cols, width, weight, b),
                   NormOf(*reference_, kind, x, rows, cols, width, weight, b), x, width, weight, b);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(ConformanceRows, NormByHand) {
  // mean(x^2) = 12.5, rsqrt(12.5 + eps); eps is too small to matter at 1e-5.
  const auto rms = NormOf(*backend_, NormKind::kRms, {3, 4}, 1, 2, 2, {1, 2}, nullptr);
  EXPECT_NEAR(rms[0], 3 / std::sqrt(12.5), 1e-5);
  EXPECT_NEAR(rms[1], 8 / std::sqrt(12.5), 1e-5);
  // mean 2, variance 1: (-1, 1) * weight + bias.
  const float bias[] = {10, 20};
  const auto layer = NormOf(*backend_, NormKind::kLayer, {1, 3}, 1, 2, 2, {1, 2}, bias);
  EXPECT_NEAR(layer[0], 9, 2e-5);
  EXPECT_NEAR(layer[1], 22, 2e-5);
}

TEST_P(ConformanceRows, NormInPlaceAndStrided) {
  const int64_t rows = 5, width = 48, padding = 7;
  const auto values = Normal(static_cast<size_t>(rows * (width + padding)), random_);
  Tensor x(*backend_, rows, width, padding);
  x.host = values;
  x.Push();
  Tensor weight(*backend_, 1, width, Normal(48, random_)), out(*backend_, rows, width);
  backend_->Norm(NormKind::kRms, x.view(), width, weight.view().f32(), nullptr, 1e-6f, out.view());
  backend_->Norm(NormKind::kRms, x.view(), width, weight.view().f32(), nullptr, 1e-6f, x.view());
  out.Pull();
  x.Pull();
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < width; ++i) ASSERT_EQ(x.at(row, i), out.at(row, i));
    for (int64_t i = width; i < width + padding; ++i) {
      ASSERT_EQ(x.at(row, i), values[static_cast<size_t>(row * (width + padding) + i)]);
    }
  }
}

double ActivationOf(ActivationKind kind, double x) {
  if (kind == ActivationKind::kSilu) return x / (1 + std::exp(-x));
  if (kind == ActivationKind::kGeluErf) return x * 0.5 * std::erfc(-x / std::numbers::sqrt2);
  const double y = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-2 * y));
}

// The arguments of e^y are right to a few u |y|, so results to (8 + 3 |y|) u of themselves; erfc's
// formula adds 1.2e-7 = 2 u. Where the result has fallen below e^-80 only its size is checked.
double ActivationTolerance(ActivationKind kind, double x, double value) {
  const double y = kind == ActivationKind::kSilu ? std::abs(x) : std::abs(x) * (2 + x * x / 8);
  return (12 + 3 * y) * kUnit * std::abs(value) + 1e-33;
}

TEST_P(ConformanceRows, Activation) {
  for (const ActivationKind kind :
       {ActivationKind::kSilu, ActivationKind::kGeluTanh, ActivationKind::kGeluErf}) {
    for (const int64_t width : kWidths) {
      const int64_t rows = kRows[random_() % std::size(kRows)];
      auto values = Normal(static_cast<size_t>(rows * width), random_, 4.0f);
      values[0] = -200.0f;
      values[values.size() - 1] = 200.0f;
      Tensor gate(*backend_, rows, width, values), out(*backend_, rows, width);
      Tensor up(*backend_, rows, width, Normal(values.size(), random_));
      backend_->Activate(kind, gate.view(), up.view(), out.view());
      backend_->Activate(kind, gate.view(), TensorView{}, gate.view());  // alone and in place
      out.Pull();
      gate.Pull();
      for (size_t i = 0; i < values.size(); ++i) {
        const double want = ActivationOf(kind, values[i]);
        const double tolerance = ActivationTolerance(kind, values[i], want);
        ASSERT_NEAR(gate.host[i], want, tolerance) << "x = " << values[i];
        ASSERT_NEAR(out.host[i], want * up.host[i],
                    tolerance * std::abs(up.host[i]) + 2 * kUnit * std::abs(want * up.host[i]))
            << "x = " << values[i];
      }
    }
  }
}

TEST_P(ConformanceRows, AddAndGatherAreExact) {
  for (const int64_t rows : kRows) {
    const int64_t width = kWidths[random_() % std::size(kWidths)];
    const auto a = Normal(static_cast<size_t>(rows * width), random_),
               b = Normal(a.size(), random_);
    Tensor x(*backend_, rows, width, a), y(*backend_, rows, width, b);
    backend_->Add(x.view(), y.view());
    x.Pull();
    for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(x.host[i], a[i] + b[i]);

    std::vector<int32_t> picks(1 + random_() % 9);
    for (int32_t& pick : picks) pick = static_cast<int32_t>(random_() % rows);
    Tensor out(*backend_, static_cast<int64_t>(picks.size()), width);
    backend_->GatherRows(x.view(), picks, out.view());
    out.Pull();
    for (size_t i = 0; i < picks.size(); ++i) {
      for (int64_t d = 0; d < width; ++d) {
        ASSERT_EQ(out.at(static_cast<int64_t>(i), d), x.at(picks[i], d));
      }
    }
  }
}

// fp32 products of K terms differ from the double reference by at most K u sum|x w| plus the
// roundings of bias and old value, and the reference's own final one.
TEST_P(ConformanceRows, MatMulAndEmbedOfEveryType) {
  for (const DType dtype : kWeightTypes) {
    const int64_t k = TraitsOf(dtype).block_elements == 1 ? 131 : 256 * 3, n = 45;
    const auto source = RandomWeights(dtype, n, k, random_);
    std::vector<float> w(static_cast<size_t>(n * k));
    DequantizeRow(dtype, source.data(), w.size(), w.data());
    auto packed = backend_->Pack(dtype, source.data(), n, k);
    auto reference = reference_->Pack(dtype, source.data(), n, k);
    ASSERT_TRUE(packed.ok() && reference.ok());
    for (const int64_t rows : kRows) {
      const auto x = Normal(static_cast<size_t>(rows * k), random_);
      const auto old = Normal(static_cast<size_t>(rows * n), random_);
      const auto bias = Normal(static_cast<size_t>(n), random_);
      const bool accumulate = rows % 2 == 0;
      Tensor in(*backend_, rows, k, x), out(*backend_, rows, n), b(*backend_, 1, n, bias);
      Tensor in2(*reference_, rows, k, x), out2(*reference_, rows, n, old);
      if (accumulate) {
        out.host = old;
        out.Push();
      }
      backend_->MatMul(in.view(), **packed, b.view().f32(), accumulate, out.view());
      reference_->MatMul(in2.view(), **reference, bias.data(), accumulate, out2.view());
      out.Pull();
      out2.Pull();
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t o = 0; o < n; ++o) {
          double magnitude = std::abs(bias[static_cast<size_t>(o)]) + std::abs(old[0]) +
                             std::abs(old[static_cast<size_t>(row * n + o)]);
          for (int64_t i = 0; i < k; ++i) {
            magnitude += std::abs(double{x[static_cast<size_t>(row * k + i)]} *
                                  w[static_cast<size_t>(o * k + i)]);
          }
          ASSERT_NEAR(out.at(row, o), out2.at(row, o),
                      static_cast<double>(k + 4) * kUnit * magnitude)
              << TraitsOf(dtype).name << " rows " << rows;
        }
      }
    }
    const std::vector<int32_t> ids = {0, 44, 7, 7};
    Tensor got(*backend_, 4, k), want(*reference_, 4, k);
    backend_->Embed(**packed, ids, 1.5f, got.view());
    reference_->Embed(**reference, ids, 1.5f, want.view());
    got.Pull();
    want.Pull();
    for (size_t i = 0; i < got.host.size(); ++i) {
      ASSERT_NEAR(got.host[i], want.host[i], 2 * kUnit * std::abs(want.host[i]));
    }
  }
}

// Every row operator gives a row the same bits alone and in a batch, on 1, 2 and 3 threads.
TEST_P(ConformanceRows, BitsDoNotDependOnTheBatch) {
  const int64_t rows = 130, width = 1537;
  const auto x = Normal(static_cast<size_t>(rows * width), random_);
  const auto y = Normal(x.size(), random_), weight = Normal(1537, random_);
  std::vector<std::vector<float>> results;
  const auto run = [&](Backend& backend, const std::vector<float>& a, const std::vector<float>& b) {
    const auto count = static_cast<int64_t>(a.size()) / width;
    Tensor in(backend, count, width, a), up(backend, count, width, b), out(backend, count, width);
    Tensor w(backend, 1, width, weight);
    backend.Norm(NormKind::kRms, in.view(), width, w.view().f32(), nullptr, 1e-5f, out.view());
    backend.Norm(NormKind::kLayer, out.view(), width, w.view().f32(), w.view().f32(), 1e-5f,
                 out.view());
    backend.Activate(ActivationKind::kSilu, out.view(), up.view(), out.view());
    backend.Activate(ActivationKind::kGeluErf, out.view(), up.view(), out.view());
    backend.Add(out.view(), in.view());
    return out.Pull();
  };
  const auto all = run(*backend_, x, y);
  for (const int threads : {1, 3}) {
    ASSERT_EQ(std::memcmp(run(*GetParam().make(threads), x, y).data(), all.data(), 4 * all.size()),
              0);
  }
  for (const int64_t row : {0, 1, 64, 129}) {
    const auto begin = row * width;
    const auto one = run(*backend_, {x.begin() + begin, x.begin() + begin + width},
                         {y.begin() + begin, y.begin() + begin + width});
    ASSERT_EQ(std::memcmp(one.data(), all.data() + begin, 4 * one.size()), 0) << "row " << row;
  }
}

// A feed-forward in one operator has the bits of the operators that it stands for.
TEST_P(ConformanceFeedForward, BitsOfItsParts) {
  constexpr int64_t kWidth = 256, kHidden = 512 + 256;
  const std::vector<std::array<DType, 3>> types = {{DType::kQ4_1, DType::kQ4_1, DType::kQ4_1},
                                                   {DType::kQ4_K, DType::kQ8_0, DType::kQ6_K},
                                                   {DType::kQ4_0, DType::kF32, DType::kQ5_1},
                                                   {DType::kF16, DType::kF16, DType::kF16}};
  const auto pack = [&](DType dtype, int64_t n, int64_t k) {
    const std::vector<uint8_t> source = RandomWeights(dtype, n, k, random_);
    auto packed = backend_->Pack(dtype, source.data(), n, k);
    KVASIR_CHECK(packed.ok());
    return std::move(*packed);
  };
  for (const auto& type : types) {
    const auto gate = pack(type[0], kHidden, kWidth), up = pack(type[1], kHidden, kWidth),
               down = pack(type[2], kWidth, kHidden);
    for (const int64_t rows : {1, 5, 25, 64, 131}) {
      const bool accumulate = rows % 2 == 0;
      const auto kind = rows == 5 ? ActivationKind::kGeluTanh : ActivationKind::kSilu;
      const auto count = static_cast<size_t>(rows * kWidth);
      Tensor x(*backend_, rows, kWidth, Normal(count, random_));
      Tensor a(*backend_, rows, kHidden), b(*backend_, rows, kHidden);
      Tensor want(*backend_, rows, kWidth, Normal(count, random_));
      Tensor got(*backend_, rows, kWidth, want.host);
      Tensor weight(*backend_, 1, kWidth, Normal(kWidth, random_)), h(*backend_, rows, kWidth);
      const NormedRows in{x.view(), NormKind::kRms, weight.view().f32(), nullptr, 1e-5f, h.view()};
      backend_->Norm(in.kind, in.x, kWidth, in.weight, in.bias, in.eps, h.view());
      backend_->MatMul(h.view(), *gate, nullptr, false, a.view());
      backend_->MatMul(h.view(), *up, nullptr, false, b.view());
      backend_->Activate(kind, a.view(), b.view(), a.view());
      backend_->MatMul(a.view(), *down, nullptr, accumulate, want.view());
      backend_->FeedForward(in, {gate.get(), up.get(), down.get(), kind}, accumulate, a.view(),
                            b.view(), got.view());
      ASSERT_EQ(std::memcmp(got.Pull().data(), want.Pull().data(), 4 * count), 0)
          << TraitsOf(type[0]).name << " rows " << rows;
    }
  }
}

// The same of few rows of every activation, for widths that a block norms together.
TEST_P(ConformanceFeedForward, BitsOfItsPartsWhereRowsAreWide) {
  constexpr int64_t kHidden = 70, kOut = 24;
  for (const int64_t width : {96, 1088, 2052}) {
    const auto pack = [&](int64_t n, int64_t k) {
      const std::vector<uint8_t> source = RandomWeights(DType::kBF16, n, k, random_);
      return std::move(*backend_->Pack(DType::kBF16, source.data(), n, k));
    };
    const auto gate = pack(kHidden, width), up = pack(kHidden, width), down = pack(kOut, kHidden);
    for (const auto kind :
         {ActivationKind::kSilu, ActivationKind::kGeluTanh, ActivationKind::kGeluErf}) {
      for (const int64_t rows : {1, 3, 8, 12}) {
        const auto count = static_cast<size_t>(rows * width);
        Tensor x(*backend_, rows, width, Normal(count, random_));
        Tensor weight(*backend_, 1, width, Normal(static_cast<size_t>(width), random_));
        Tensor bias(*backend_, 1, width, Normal(static_cast<size_t>(width), random_));
        Tensor a(*backend_, rows, kHidden), b(*backend_, rows, kHidden), h(*backend_, rows, width);
        Tensor want(*backend_, rows, kOut), got(*backend_, rows, kOut);
        const NormedRows in{x.view(), NormKind::kLayer, weight.view().f32(), bias.view().f32(),
                            1e-5f,    h.view()};
        backend_->Norm(in.kind, in.x, width, in.weight, in.bias, in.eps, h.view());
        backend_->MatMul(h.view(), *gate, nullptr, false, a.view());
        backend_->MatMul(h.view(), *up, nullptr, false, b.view());
        backend_->Activate(kind, a.view(), b.view(), a.view());
        backend_->MatMul(a.view(), *down, nullptr, false, want.view());
        backend_->FeedForward(in, {gate.get(), up.get(), down.get(), kind}, false, a.view(),
                              b.view(), got.view());
        ASSERT_EQ(got.Pull(), want.Pull()) << rows << " rows of " << width;
      }
    }
  }
}

TEST_P(ConformanceRows, WrongShapesAreRefused) {
  const float values[64] = {};
  EXPECT_EQ(backend_->Pack(DType::kQ4_0, values, 1, 31).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_FALSE(backend_->Pack(DType::kF32, values, 0, 4).ok());
  EXPECT_FALSE(backend_->Pack(DType::kI8, values, 1, 4).ok());
  EXPECT_EQ(backend_->CreateKvPool({1, 1, 64, DType::kQ4_0}, 4).status().code(),
            StatusCode::kUnimplemented);
  EXPECT_EQ(backend_->CreateKvPool({1, 1, 64, DType::kF32}, 0).status().code(),
            StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceFeedForward, testing::ValuesIn(AttentionBackends()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Backends, ConformanceRows, testing::ValuesIn(PresentBackends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvasir
