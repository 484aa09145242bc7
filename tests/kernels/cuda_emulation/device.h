// How tests break the emulated card.
#pragma once

#include "kernels/core/status.h"

namespace kvasir::emulation {

// OpenDevice says this; Ok = there is a card again.
void MissDevice(Status why);
// Every call fails with this from now on, as CUDA's do once a card is lost; Ok = it is back.
void LoseDevice(Status why);

}  // namespace kvasir::emulation
