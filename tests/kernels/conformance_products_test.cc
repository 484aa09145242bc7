// Conformance of products with 16-bit weights on every present backend and in both arithmetics:
// those that round to bf16 on the way, too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/kernels/conformance_fixture.h"
#include "tests/kernels/random_weights.h"

namespace kvasir {
namespace {

class ConformanceProducts : public Conformance {
 protected:
  // A product of two values rounded to bf16 (u' = 2^-8) is off by 2 u' + u'^2 of itself, a sum of K
  // by K u of all magnitudes; 4 roundings for bias, old value and the reference's own.
  static double Tolerance(int64_t k, double products, double others) {
    const bool rounds = GetParam().name.find("int8") != std::string::npos ||
                        GetParam().name.find("bf16") != std::string::npos;
    constexpr double kBf16 = 0x1p-8;
    return (rounds ? 2.01 * kBf16 : 0) * products +
           static_cast<double>(k + 4) * kUnit * (products + others);
  }
};

TEST_P(ConformanceProducts, SixteenBitWeightsOfAnyWidth) {
  constexpr int64_t kOutputs = 45;
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int64_t k : {1, 31, 40, 72, 131, 576, 592, 2050}) {
      const auto source = RandomWeights(dtype, kOutputs, k, random_);
      std::vector<float> w(static_cast<size_t>(kOutputs * k));
      DequantizeRow(dtype, source.data(), w.size(), w.data());
      auto packed = backend_->Pack(dtype, source.data(), kOutputs, k);
      auto reference = reference_->Pack(dtype, source.data(), kOutputs, k);
      ASSERT_TRUE(packed.ok() && reference.ok());
      for (const int64_t rows : {1, 2, 3, 8, 17, 33}) {
        const auto x = Normal(static_cast<size_t>(rows * k), random_);
        const auto old = Normal(static_cast<size_t>(rows * kOutputs), random_);
        const auto bias = Normal(kOutputs, random_);
        Tensor in(*backend_, rows, k, x), out(*backend_, rows, kOutputs, old);
        Tensor in2(*reference_, rows, k, x), out2(*reference_, rows, kOutputs, old);
        Tensor b(*backend_, 1, kOutputs, bias);
        backend_->MatMul(in.view(), **packed, b.view().f32(), true, out.view());
        reference_->MatMul(in2.view(), **reference, bias.data(), true, out2.view());
        out.Pull();
        out2.Pull();
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t o = 0; o < kOutputs; ++o) {
            double products = 0;
            for (int64_t i = 0; i < k; ++i) {
              products += std::abs(double{x[static_cast<size_t>(row * k + i)]} *
                                   w[static_cast<size_t>(o * k + i)]);
            }
            const double others = std::abs(bias[static_cast<size_t>(o)]) +
                                  std::abs(old[static_cast<size_t>(row * kOutputs + o)]);
            ASSERT_NEAR(out.at(row, o), out2.at(row, o), Tolerance(k, products, others))
                << TraitsOf(dtype).name << " rows " << rows << " k " << k;
          }
        }
      }
    }
  }
}

// Products of normed rows have the bits of the norm and of each product alone, for weights of 8
// bits, 16 bits and fp32 beside one another, as a file may mix them.
TEST_P(ConformanceProducts, OfNormedRowsAreThoseOfTheirParts) {
  constexpr int64_t kOutputs = 33;
  const std::vector<DType> kTypes = {DType::kQ8_0, DType::kQ4_1, DType::kBF16, DType::kF16,
                                     DType::kF32};
  struct Case {
    int64_t rows, inputs;
    NormKind kind;
    bool bias;
  };
  const Case kCases[] = {{1, 64, NormKind::kRms, false},
                         {5, 96, NormKind::kRms, true},
                         {40, 608, NormKind::kRms, false},
                         {131, 64, NormKind::kLayer, true},
                         {3, 32768, NormKind::kRms, false},
                         {3, 32768 + 32, NormKind::kLayer, false}};  // wider than is normed at once
  for (const Case& c : kCases) {
    Tensor x(*backend_, c.rows, c.inputs, Normal(static_cast<size_t>(c.rows * c.inputs), random_));
    const auto width = static_cast<size_t>(c.inputs);
    Tensor weight(*backend_, 1, c.inputs, Normal(width, random_));
    Tensor bias(*backend_, 1, c.inputs, Normal(width, random_));
    Tensor room(*backend_, c.rows, c.inputs), normed(*backend_, c.rows, c.inputs);
    NormedRows in{x.view(), c.kind,     weight.view().f32(), c.bias ? bias.view().f32() : nullptr,
                  1e-5f,    room.view()};
    backend_->Norm(in.kind, in.x, c.inputs, in.weight, in.bias, in.eps, normed.view());
    std::vector<std::unique_ptr<PackedWeight>> weights;
    for (const DType dtype : kTypes) {
      const auto source = RandomWeights(dtype, kOutputs, c.inputs, random_);
      weights.push_back(std::move(*backend_->Pack(dtype, source.data(), kOutputs, c.inputs)));
    }
    // The first `first` left out: what remains is of fewer kinds.
    for (const size_t first : {0, 1, 2, 4}) {
      std::vector<std::unique_ptr<Tensor>> outs;
      std::vector<Projection> projections;
      for (size_t i = first; i < (first == 0 ? 2 : weights.size()); ++i) {
        outs.push_back(std::make_unique<Tensor>(*backend_, c.rows, kOutputs));
        projections.push_back({weights[i].get(), nullptr, outs.back()->view()});
      }
      backend_->MatMul(in, projections);
      for (size_t i = 0; i < projections.size(); ++i) {
        Tensor alone(*backend_, c.rows, kOutputs);
        backend_->MatMul(normed.view(), *projections[i].weight, nullptr, false, alone.view());
        ASSERT_EQ(outs[i]->Pull(), alone.Pull()) << c.inputs << " inputs, " << i + first;
      }
    }
  }
}

// Few rows of widths on either side of what a warp, a block and its memory take; matrices of one
// type and several heights, as query, key and value have, and more of them than go together.
TEST_P(ConformanceProducts, OfFewNormedRowsAreThoseOfTheirParts) {
  struct Case {
    int64_t rows, inputs;
    NormKind kind;
    bool bias;
  };
  const Case kCases[] = {{1, 40, NormKind::kRms, true},      {1, 600, NormKind::kLayer, true},
                         {8, 1024, NormKind::kLayer, true},  {5, 600, NormKind::kRms, false},
                         {1, 1056, NormKind::kLayer, false}, {7, 1100, NormKind::kRms, false},
                         {2, 4096, NormKind::kRms, false},   {1, 4100, NormKind::kLayer, true},
                         {1, 8192, NormKind::kRms, false},   {1, 30, NormKind::kRms, false}};
  for (const Case& c : kCases) {
    Tensor x(*backend_, c.rows, c.inputs, Normal(static_cast<size_t>(c.rows * c.inputs), random_));
    const auto width = static_cast<size_t>(c.inputs);
    Tensor weight(*backend_, 1, c.inputs, Normal(width, random_));
    Tensor bias(*backend_, 1, c.inputs, Normal(width, random_));
    Tensor room(*backend_, c.rows, c.inputs), normed(*backend_, c.rows, c.inputs);
    const NormedRows in{
        x.view(), c.kind,     weight.view().f32(), c.bias ? bias.view().f32() : nullptr,
        1e-5f,    room.view()};
    backend_->Norm(in.kind, in.x, c.inputs, in.weight, in.bias, in.eps, normed.view());
    std::vector<std::unique_ptr<PackedWeight>> weights;
    std::vector<std::unique_ptr<Tensor>> outs, biases;
    std::vector<Projection> projections;
    for (const int64_t outputs : {33, 7, 70, 1, 12}) {
      const DType dtype = outputs == 12 ? DType::kF32 : DType::kBF16;
      const auto source = RandomWeights(dtype, outputs, c.inputs, random_);
      weights.push_back(std::move(*backend_->Pack(dtype, source.data(), outputs, c.inputs)));
      outs.push_back(std::make_unique<Tensor>(*backend_, c.rows, outputs));
      biases.push_back(std::make_unique<Tensor>(*backend_, 1, outputs,
                                                Normal(static_cast<size_t>(outputs), random_)));
      projections.push_back({weights.back().get(),
                             outputs % 2 == 0 ? nullptr : biases.back()->view().f32(),
                             outs.back()->view()});
    }
    backend_->MatMul(in, projections);
    for (size_t i = 0; i < projections.size(); ++i) {
      const Projection& projection = projections[i];
      Tensor alone(*backend_, c.rows, projection.out.cols);
      backend_->MatMul(normed.view(), *projection.weight, projection.bias, false, alone.view());
      ASSERT_EQ(outs[i]->Pull(), alone.Pull()) << c.rows << " rows of " << c.inputs << ", " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ConformanceProducts, testing::ValuesIn(AttentionBackends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace kvasir
