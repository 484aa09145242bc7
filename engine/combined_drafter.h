// CombinedDrafter: several drafters of one answer; the guess that most is expected of counts, the
// first of equal ones. One that throws is dropped, and the others go on.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/drafter.h"

namespace kvasir {

class CombinedDrafter final : public Drafter {
 public:
  void Add(std::unique_ptr<Drafter> drafter);  // null is none
  void Append(int32_t token) override;
  Guess Draft(int32_t most) override;
  int32_t Most() const override;
  int32_t dropped() const { return dropped_; }

 private:
  template <typename Call>
  void ForEach(const Call& call);

  std::vector<std::unique_ptr<Drafter>> drafters_;
  int32_t dropped_ = 0;
};

}  // namespace kvasir
