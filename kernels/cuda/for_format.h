// ForFormat: from a layout known at run time to template parameters.
#pragma once

#include <type_traits>

#include "kernels/core/status.h"
#include "kernels/cuda/weight_layout.h"

namespace kvasir::cuda {

template <WeightFormat kFormat>
using FormatConstant = std::integral_constant<WeightFormat, kFormat>;
template <int kValue>
using IntConstant = std::integral_constant<int, kValue>;

template <WeightFormat kFormat, typename Body>
Status ForSlices(const WeightLayout& layout, const Body& body) {
  if (layout.slices == 1) return body(FormatConstant<kFormat>{}, IntConstant<1>{});
  return body(FormatConstant<kFormat>{}, IntConstant<WideSlices(kFormat)>{});
}

// body(FormatConstant, IntConstant of slices).
template <typename Body>
Status ForFormat(const WeightLayout& layout, const Body& body) {
  switch (layout.format) {
    case WeightFormat::kF32:
      return ForSlices<WeightFormat::kF32>(layout, body);
    case WeightFormat::kF16:
      return ForSlices<WeightFormat::kF16>(layout, body);
    case WeightFormat::kBF16:
      return ForSlices<WeightFormat::kBF16>(layout, body);
    case WeightFormat::kQ4_0:
      return ForSlices<WeightFormat::kQ4_0>(layout, body);
    case WeightFormat::kQ4_1:
      return ForSlices<WeightFormat::kQ4_1>(layout, body);
    case WeightFormat::kQ4_K:
      return ForSlices<WeightFormat::kQ4_K>(layout, body);
    case WeightFormat::kQ8_0:
      return ForSlices<WeightFormat::kQ8_0>(layout, body);
    case WeightFormat::kBytes:
      return ForSlices<WeightFormat::kBytes>(layout, body);
  }
  return Internal("an unknown weight format");
}

}  // namespace kvasir::cuda
