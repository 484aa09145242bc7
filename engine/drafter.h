// Drafter: guesses the next tokens of one answer; the engine verifies them all in one step.
//
// One object an answer, on the engine's thread alone. A wrong guess costs the rows that verified
// it, never the answer: every token is drawn from the model's own distribution as without drafts.
#pragma once

#include <cstdint>
#include <vector>

namespace kvasir {

class Drafter {
 public:
  virtual ~Drafter() = default;
  // The answer went on by this token.
  virtual void Append(int32_t token) = 0;
  // At most `most` tokens that may follow; none without a good guess.
  virtual std::vector<int32_t> Draft(int32_t most) const = 0;
};

}  // namespace kvasir
