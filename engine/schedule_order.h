// ScheduleOrder: which prompt is computed first when several wait. The answers are the same in any
// order.
#pragma once

#include <cstdint>
#include <string_view>

#include "kernels/core/status.h"

namespace kvasir {

enum class ScheduleOrder : uint8_t {
  kArrival,     // fcfs: first come, first served
  kShortest,    // sjf: fewest rows left to compute first
  kMostReused,  // lpm: most reused tokens first
};

std::string_view ScheduleOrderName(ScheduleOrder order);  // "fcfs", "sjf", "lpm"
// kInvalidArgument names the choices.
Result<ScheduleOrder> ParseScheduleOrder(std::string_view name);

// What sjf and lpm let a waiting prompt gain on newer ones, in rows (lpm: reused tokens) for every
// row that the engine computes meanwhile: under sjf a prompt of n rows comes before everything that
// arrives after n / kAgeing computed rows, so nothing waits for ever.
inline constexpr double kAgeing = 0.25;

}  // namespace kvasir
