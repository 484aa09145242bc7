// How FAISS code is called: on the calling thread alone, exceptions turned into a Status.
#pragma once

#include <omp.h>

#include <exception>
#include <new>
#include <string>

#include "kernels/core/status.h"

namespace kvasir {

// Keeps OpenMP on the calling thread while it lives. The setting is the thread's own.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

template <typename Body>
Status Guarded(const Body& body) {
  const OneThread one_thread;
  try {
    body();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("no memory for the vector index");
  } catch (const std::exception& error) {
    return Internal(std::string("vector index: ") + error.what());
  }
  return Status::Ok();
}

}  // namespace kvasir
