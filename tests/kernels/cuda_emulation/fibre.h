// Fibre: a function on its own stack that gives control back and takes it up again, all on one
// thread. A switch costs a few nanoseconds. x86-64 alone. Not thread-safe: a fibre stays on the
// thread that first resumed it.
#pragma once

#include <cstddef>

namespace kvasir::emulation {

class Fibre {
 public:
  using Body = void (*)(void* argument);

  Fibre();
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  // Next Resume() starts body(argument). Whatever ran here before is forgotten.
  void Start(Body body, void* argument);
  // Runs until Yield() or the body's end.
  void Resume();
  // Called inside: back to whoever resumed.
  void Yield();
  bool finished() const { return finished_; }

 private:
  static void Enter(Fibre* fibre);
  void Leave(bool for_good);

  static constexpr size_t kStackBytes = 64 * 1024;
  char* memory_ = nullptr;  // a guard page, then the stack
  size_t guard_ = 0;
  void* inside_ = nullptr;  // stack pointers while switched away
  void* outside_ = nullptr;
  Body body_ = nullptr;
  void* argument_ = nullptr;
  bool finished_ = true;
  // For the address sanitizer alone.
  void* fake_inside_ = nullptr;
  void* fake_outside_ = nullptr;
  const void* outside_bottom_ = nullptr;
  size_t outside_size_ = 0;
};

}  // namespace kvasir::emulation
