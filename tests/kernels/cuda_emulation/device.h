// How tests break the emulated card, and what they may count of it.
#pragma once

#include <cstddef>

#include "kernels/core/status.h"

namespace kvasir::emulation {

// OpenDevice says this; Ok = there is a card again.
void MissDevice(Status why);
// Every call fails with this from now on, as CUDA's do once a card is lost; Ok = it is back.
void LoseDevice(Status why);

// EndRecording fails with this; Ok = it works again.
void FailRecording(Status why);

// Calls since the process began.
struct DeviceCalls {
  size_t allocations = 0;  // of the card's memory and of pinned memory
  size_t waits = 0;        // of a host thread for the card
  size_t uploads = 0;
  size_t recordings = 0, graphs = 0;  // graphs: launches of them
  size_t overlapped = 0;              // recordings of kernels that overlap
  size_t unpinned = 0;                // copies from or to memory that is not pinned: they may wait
  size_t trials = 0;  // of the library's algorithms, one for each shape and number of rows
};
DeviceCalls CallsSoFar();
void CountTrial();

}  // namespace kvasir::emulation
