// The card behind CudaBackend: memory, streams and copies, without a CUDA type. Implemented on the
// CUDA runtime (device.cu) and in the tests' emulation. Thread-safe.
//
// Errors are CUDA's own in words. Once a card is lost every call fails, until the process ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/status.h"

namespace kvasir::cuda {

using Stream = void*;
using Event = void*;

struct DeviceInfo {
  std::string name;
  int compute = 0;          // 10 * major + minor
  int multiprocessors = 0;  // SMs
  size_t memory_bytes = 0;
  size_t shared_bytes_per_block = 0;  // the most that a launch may ask for
};

// Makes the first card the calling thread's. With what to do about it: kNotFound where there is no
// driver or no card, kUnavailable where one of them is too old.
Result<DeviceInfo> OpenDevice();

// kResourceExhausted if there is not so much memory.
Result<void*> AllocateDeviceMemory(size_t bytes);
void FreeDeviceMemory(void* pointer);
// How often memory was freed: while it stays, what addresses name is still there.
uint64_t DeviceMemoryFrees();
// Host memory that copies reach at full speed.
Result<void*> AllocatePinnedMemory(size_t bytes);
void FreePinnedMemory(void* pointer);

Result<Stream> CreateStream(bool urgent);
void DestroyStream(Stream stream);

// A place in a stream's work. Before its first record it has passed.
Result<Event> CreateEvent();
void DestroyEvent(Event event);
Status RecordEvent(Event event, Stream stream);
// What is queued on `stream` from now on waits for the event's last record; the caller does not.
Status WaitForEvent(Stream stream, Event event);
// The caller waits.
Status AwaitEvent(Event event);
Result<bool> HasPassed(Event event);

// What is queued on `stream` between these is not done but kept, to be done by every LaunchGraph:
// with the same arguments, on what memory then holds. Nothing may wait for the stream meanwhile.
// Kernels that this thread launches between them are `overlapped`, on cards of compute capability
// 9.0 and newer: each may begin before the one in front is done (AwaitEarlierKernels,
// platform.cuh). A graph as a whole is not: all that was queued comes before it.
using Graph = void*;
Status BeginRecording(Stream stream, bool overlapped);
Result<Graph> EndRecording(Stream stream);
Status LaunchGraph(Graph graph, Stream stream);
void DestroyGraph(Graph graph);

// The source may be changed once the call returns, unless it is pinned: then it is read when the
// copy's turn comes. Copies from other memory may wait for the stream.
Status CopyToDevice(void* device, const void* host, size_t bytes, Stream stream);
// The bytes are there after Synchronize().
Status CopyToHost(void* host, const void* device, size_t bytes, Stream stream);
// `rows` runs of `width` bytes, so many bytes apart, from device to device or to the host.
struct Runs {
  size_t width = 0, rows = 0;
  size_t to_stride = 0, from_stride = 0;
};
Status CopyRuns(void* to, const void* from, const Runs& runs, Stream stream);
Status Synchronize(Stream stream);

}  // namespace kvasir::cuda
