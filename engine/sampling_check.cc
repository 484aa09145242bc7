// The one table of bounds for sampling fields.
#include <cmath>
#include <cstdio>
#include <string>

#include "engine/sampler.h"

namespace kvasir {
namespace {

struct Bounds {
  const char* field;
  double (*value)(const SamplingParams&);
  double low, high;
  bool low_open, high_open;
};

constexpr Bounds kBounds[] = {
    {"temperature", [](const SamplingParams& p) { return double{p.temperature}; }, 0, 2, false,
     false},
    {"top_k", [](const SamplingParams& p) { return double(p.top_k); }, 0, 2147483647, false, false},
    {"top_p", [](const SamplingParams& p) { return double{p.top_p}; }, 0, 1, true, false},
    {"min_p", [](const SamplingParams& p) { return double{p.min_p}; }, 0, 1, false, true},
    {"repetition_penalty", [](const SamplingParams& p) { return double{p.repetition_penalty}; }, 0,
     10, true, false},
    {"presence_penalty", [](const SamplingParams& p) { return double{p.presence_penalty}; }, -2, 2,
     false, false},
    {"frequency_penalty", [](const SamplingParams& p) { return double{p.frequency_penalty}; }, -2,
     2, false, false},
    {"logprobs", [](const SamplingParams& p) { return double(p.logprobs); }, -1, 20, false, false},
    {"number of logit_bias entries",
     [](const SamplingParams& p) { return double(p.logit_bias.size()); }, 0, 1024, false, false},
};
constexpr double kMaxBias = 100;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", value);
  return text;
}

// NaN is outside every range.
bool Inside(const Bounds& b, double x) {
  return (b.low_open ? x > b.low : x >= b.low) && (b.high_open ? x < b.high : x <= b.high);
}

std::string Range(const Bounds& b) {
  char text[80];
  std::snprintf(text, sizeof text, "%c%.10g, %.10g%c", b.low_open ? '(' : '[', b.low, b.high,
                b.high_open ? ')' : ']');
  return text;
}

}  // namespace

Status CheckSampling(const SamplingParams& params, int32_t vocab) {
  for (const Bounds& b : kBounds) {
    const double x = b.value(params);
    if (!Inside(b, x)) {
      return InvalidArgument(std::string(b.field) + " is " + Number(x) + "; it must be in " +
                             Range(b));
    }
  }
  for (const auto& [id, bias] : params.logit_bias) {
    if (id < 0 || id >= vocab) {
      return InvalidArgument("logit_bias names token " + std::to_string(id) +
                             "; the vocabulary has ids 0 to " + std::to_string(vocab - 1));
    }
    if (!(std::fabs(bias) <= kMaxBias)) {
      return InvalidArgument("logit_bias of token " + std::to_string(id) + " is " + Number(bias) +
                             "; it must be in [-100, 100]");
    }
  }
  return Status::Ok();
}

}  // namespace kvasir
