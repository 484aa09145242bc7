// GoldenTest: a real model on some backend against an independent implementation (tests/golden/).
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "tests/engine/golden_file.h"

namespace kvasir::test {

class GoldenTest : public ::testing::Test {
 protected:
  // Takes a backend that computes in fp32. Skips the test if the model is not on this machine.
  void Load(const std::string& file, std::unique_ptr<Backend> backend);
  // Leaves only the `count` shortest prompts, and so many tokens of their texts.
  void KeepShortest(size_t count, size_t tokens);
  void Run();

 private:
  struct Answer {
    std::vector<float> first;     // logits behind the prompt
    std::vector<int32_t> tokens;  // greedy
  };
  double Tolerance(const GoldenPrompt& prompt) const;
  std::vector<Answer> AnswerAll();
  void CompareTop(const GoldenPrompt& prompt, const std::vector<float>& logits);
  bool CompareGreedy(const GoldenPrompt& prompt, const std::vector<int32_t>& tokens);

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  std::vector<GoldenPrompt> prompts_;
  double worst_ = 0;
};

}  // namespace kvasir::test
