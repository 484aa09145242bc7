// Mirror: integers on the card that are not those of the step's plan; copied only when they differ
// from what is there. The step's thread alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/device_buffers.h"

namespace kvasir::cuda {

class Mirror {
 public:
  Result<const int32_t*> Of(std::span<const int32_t> values, DeviceBuffers& buffers,
                            Stream stream) {
    if (valid_ && std::equal(values.begin(), values.end(), host_.begin(), host_.end())) {
      return memory_.As<const int32_t>();
    }
    valid_ = false;
    KVASIR_ASSIGN_OR_RETURN(memory_, buffers.Take(values.size_bytes()));
    host_.assign(values.begin(), values.end());
    KVASIR_RETURN_IF_ERROR(
        CopyToDevice(memory_.As<void>(), host_.data(), values.size_bytes(), stream));
    valid_ = true;
    return memory_.As<const int32_t>();
  }

 private:
  std::vector<int32_t> host_;
  Scratch memory_;
  bool valid_ = false;
};

}  // namespace kvasir::cuda
