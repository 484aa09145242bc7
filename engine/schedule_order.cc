#include "engine/schedule_order.h"

#include <array>
#include <string>

namespace kvasir {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"fcfs", "sjf", "lpm"};

}  // namespace

std::string_view ScheduleOrderName(ScheduleOrder order) {
  return kNames.at(static_cast<size_t>(order));
}

Result<ScheduleOrder> ParseScheduleOrder(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<ScheduleOrder>(i);
  }
  std::string message = "no schedule '";
  message.append(name).append("': use fcfs, sjf or lpm");
  return InvalidArgument(message);
}

}  // namespace kvasir
