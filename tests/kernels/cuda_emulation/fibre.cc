#include "tests/kernels/cuda_emulation/fibre.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "kernels/core/status.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define KVASIR_LEAVING(fake, bottom, size) __sanitizer_start_switch_fiber(fake, bottom, size)
#define KVASIR_ARRIVED(fake, bottom, size) __sanitizer_finish_switch_fiber(fake, bottom, size)
#else
#define KVASIR_LEAVING(fake, bottom, size) static_cast<void>(0)
#define KVASIR_ARRIVED(fake, bottom, size) static_cast<void>(0)
#endif

// Saves the callee's registers and the stack pointer in *save, takes up those at `load`.
extern "C" void kvasir_switch_stack(void** save, void* load);
asm(R"(
  .text
  .globl kvasir_switch_stack
  .type kvasir_switch_stack, @function
kvasir_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .globl kvasir_first_frame
  .type kvasir_first_frame, @function
kvasir_first_frame:
  movq %r12, %rdi
  callq *%r13
  ud2
)");
extern "C" void kvasir_first_frame();

namespace kvasir::emulation {

Fibre::Fibre() : guard_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
  void* memory = mmap(nullptr, guard_ + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  KVASIR_CHECK(memory != MAP_FAILED);
  memory_ = static_cast<char*>(memory);
  KVASIR_CHECK(mprotect(memory_, guard_, PROT_NONE) == 0);
}

Fibre::~Fibre() { munmap(memory_, guard_ + kStackBytes); }

void Fibre::Start(Body body, void* argument) {
  body_ = body;
  argument_ = argument;
  finished_ = false;
  // What kvasir_switch_stack pops: r15, r14, r13, r12, rbx, rbp, return address. The stack is
  // aligned to 16 bytes at the call.
  auto** top = reinterpret_cast<void**>(memory_ + guard_ + kStackBytes);
  top -= 2;
  *--top = reinterpret_cast<void*>(&kvasir_first_frame);
  *--top = nullptr;
  *--top = nullptr;
  *--top = this;
  *--top = reinterpret_cast<void*>(&Fibre::Enter);
  *--top = nullptr;
  *--top = nullptr;
  inside_ = top;
  fake_inside_ = nullptr;
}

void Fibre::Enter(Fibre* fibre) {
  KVASIR_ARRIVED(nullptr, &fibre->outside_bottom_, &fibre->outside_size_);
  fibre->body_(fibre->argument_);
  fibre->finished_ = true;
  fibre->Leave(true);
}

void Fibre::Resume() {
  KVASIR_LEAVING(&fake_outside_, memory_ + guard_, kStackBytes);
  kvasir_switch_stack(&outside_, inside_);
  KVASIR_ARRIVED(fake_outside_, nullptr, nullptr);
}

void Fibre::Yield() { Leave(false); }

void Fibre::Leave([[maybe_unused]] bool for_good) {
  KVASIR_LEAVING(for_good ? nullptr : &fake_inside_, outside_bottom_, outside_size_);
  kvasir_switch_stack(&inside_, outside_);
  KVASIR_ARRIVED(fake_inside_, &outside_bottom_, &outside_size_);
}

}  // namespace kvasir::emulation
