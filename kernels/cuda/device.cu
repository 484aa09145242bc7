#include <cuda_runtime.h>

#include <atomic>
#include <string>

#include "kernels/cuda/device.h"
#include "kernels/cuda/platform.cuh"

namespace kvasir::cuda {
namespace {

std::atomic<uint64_t> frees{0};
std::atomic<bool> can_overlap{false};      // the card: kernels wait for each other themselves
thread_local Stream overlapped = nullptr;  // recorded by this thread, with kernels that overlap

Status Failed(const char* what, cudaError_t error) {
  std::string message = "CUDA: ";
  message.append(what).append(": ").append(cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return ResourceExhausted(message);
  return Internal(message.append(" (") + cudaGetErrorName(error) + ")");
}

Status Done(const char* what, cudaError_t error) {
  return error == cudaSuccess ? Status::Ok() : Failed(what, error);
}

// Nothing is there, or something that cannot be used.
Status NoDevice(const std::string& why) { return NotFound("no CUDA device: " + why); }
Status OldDevice(const std::string& why) {
  return Unavailable("the CUDA device cannot be used: " + why);
}

// Whether there is a driver, new enough for the runtime that is linked in.
Status CheckDriver() {
  int driver = 0, runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return NoDevice("no NVIDIA driver is installed");
  }
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess && driver / 1000 < runtime / 1000) {
    return OldDevice("the driver is made for CUDA " + std::to_string(driver / 1000) +
                     ", Kvasir for CUDA " + std::to_string(runtime / 1000) +
                     ": install a newer driver");
  }
  return Status::Ok();
}

}  // namespace

Status LaunchStatus(const char* what, int error) {
  return Failed(what, static_cast<cudaError_t>(error));
}

Result<DeviceInfo> OpenDevice() {
  KVASIR_RETURN_IF_ERROR(CheckDriver());
  int count = 0;
  const cudaError_t counted = cudaGetDeviceCount(&count);
  if (counted != cudaSuccess)
    return NoDevice(std::string("the driver says ") + cudaGetErrorString(counted));
  if (count == 0) return NoDevice("the driver finds no card");
  KVASIR_RETURN_IF_ERROR(Done("opening the first card", cudaSetDevice(0)));
  cudaDeviceProp properties;
  KVASIR_RETURN_IF_ERROR(
      Done("asking for its properties", cudaGetDeviceProperties(&properties, 0)));
  DeviceInfo info;
  info.name = properties.name;
  info.compute = 10 * properties.major + properties.minor;
  can_overlap = info.compute >= 90;
  info.multiprocessors = properties.multiProcessorCount;
  info.memory_bytes = properties.totalGlobalMem;
  info.shared_bytes_per_block = properties.sharedMemPerBlockOptin;
  if (info.compute < 80) {
    return OldDevice(info.name + " has compute capability " + std::to_string(properties.major) +
                     "." + std::to_string(properties.minor) + ", 8.0 is the least");
  }
  return info;
}

Result<void*> AllocateDeviceMemory(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // this error does not stick
    return ResourceExhausted("the card has no memory for " + std::to_string(bytes) + " bytes");
  }
  if (error != cudaSuccess) return Failed("allocating", error);
  return memory;
}

void FreeDeviceMemory(void* pointer) {
  if (pointer == nullptr) return;
  ++frees;
  cudaFree(pointer);
}
uint64_t DeviceMemoryFrees() { return frees; }

Result<void*> AllocatePinnedMemory(size_t bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) cudaGetLastError();  // this error does not stick
  KVASIR_RETURN_IF_ERROR(Done("pinning host memory", error));
  return memory;
}

void FreePinnedMemory(void* pointer) { cudaFreeHost(pointer); }

Result<Stream> CreateStream(bool urgent) {
  int least = 0, greatest = 0;
  KVASIR_RETURN_IF_ERROR(
      Done("stream priorities", cudaDeviceGetStreamPriorityRange(&least, &greatest)));
  cudaStream_t stream = nullptr;
  KVASIR_RETURN_IF_ERROR(Done(
      "a stream",
      cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, urgent ? greatest : least)));
  return Stream{stream};
}

void DestroyStream(Stream stream) { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }

Result<Event> CreateEvent() {
  cudaEvent_t event = nullptr;
  KVASIR_RETURN_IF_ERROR(
      Done("an event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming)));
  return Event{event};
}

void DestroyEvent(Event event) { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

Status RecordEvent(Event event, Stream stream) {
  return Done("recording an event",
              cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)));
}

Status WaitForEvent(Stream stream, Event event) {
  return Done("waiting for an event", cudaStreamWaitEvent(static_cast<cudaStream_t>(stream),
                                                          static_cast<cudaEvent_t>(event), 0));
}

Status AwaitEvent(Event event) {
  return Done("the card", cudaEventSynchronize(static_cast<cudaEvent_t>(event)));
}

Result<bool> HasPassed(Event event) {
  const cudaError_t error = cudaEventQuery(static_cast<cudaEvent_t>(event));
  if (error == cudaErrorNotReady) {
    cudaGetLastError();  // which is no error
    return false;
  }
  KVASIR_RETURN_IF_ERROR(Done("the card", error));
  return true;
}

// Relaxed: other threads, and this one, may allocate meanwhile.
Status BeginRecording(Stream stream, bool overlap) {
  KVASIR_RETURN_IF_ERROR(Done(
      "recording a step",
      cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeRelaxed)));
  overlapped = overlap && can_overlap ? stream : nullptr;
  return Status::Ok();
}

bool IsOverlapped(Stream stream) { return overlapped != nullptr && overlapped == stream; }

Result<Graph> EndRecording(Stream stream) {
  overlapped = nullptr;
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph);
  if (ended != cudaSuccess) {
    cudaGetLastError();  // this error does not stick
    return Failed("recording a step", ended);
  }
  cudaGraphExec_t made = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
  cudaGraphDestroy(graph);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return Failed("making a graph of a step", error);
  }
  return Graph{made};
}

Status LaunchGraph(Graph graph, Stream stream) {
  return Done("a recorded step", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph),
                                                 static_cast<cudaStream_t>(stream)));
}

void DestroyGraph(Graph graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

Status CopyToDevice(void* device, const void* host, size_t bytes, Stream stream) {
  if (bytes == 0) return Status::Ok();
  return Done("copy to the card", cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                                                  static_cast<cudaStream_t>(stream)));
}

Status CopyToHost(void* host, const void* device, size_t bytes, Stream stream) {
  if (bytes == 0) return Status::Ok();
  return Done("copy from the card", cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost,
                                                    static_cast<cudaStream_t>(stream)));
}

Status CopyRuns(void* to, const void* from, const Runs& runs, Stream stream) {
  if (runs.rows == 0 || runs.width == 0) return Status::Ok();
  return Done("copy of rows",
              cudaMemcpy2DAsync(to, runs.to_stride, from, runs.from_stride, runs.width, runs.rows,
                                cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
}

Status Synchronize(Stream stream) {
  return Done("the card", cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

}  // namespace kvasir::cuda
