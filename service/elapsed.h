// Wall time since a moment, in milliseconds.
#pragma once

#include <chrono>

namespace kvasir {

inline double MillisecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

}  // namespace kvasir
