// ForwardOracle: a decoder's logits straight from the layer equations, in double, one sequence at
// a time, without cache, blocks or batches. Reads tensors from the GGUF file by itself and shares
// no code with Forward but the dequantisation of rows.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/model/gguf.h"

namespace kvasir::test {

class ForwardOracle {
 public:
  explicit ForwardOracle(const std::string& path);

  // Logits of every row, [T][V].
  std::vector<std::vector<double>> Logits(const std::vector<int32_t>& ids) const;
  // One layer's K before RoPE and V of every row, [T][G*D], in a run over `ids`.
  void KeyValue(const std::vector<int32_t>& ids, int layer, std::vector<std::vector<double>>* k,
                std::vector<std::vector<double>>* v) const;

 private:
  using Rows = std::vector<std::vector<double>>;
  struct Matrix {
    size_t n = 0, k = 0;
    std::vector<double> values;
  };
  const Matrix& Of(const std::string& name) const { return tensors_.at(name); }
  Rows Times(const Rows& x, const std::string& name) const;
  Rows Norm(const Rows& x, const std::string& name, size_t width) const;
  void Rotate(std::vector<double>& row, size_t position, double theta) const;
  Rows Attention(int layer, Rows q, Rows k, const Rows& v) const;
  Rows Run(const std::vector<int32_t>& ids, int stop_layer, Rows* k, Rows* v) const;

  std::string arch_;
  int layers_, width_, heads_, kv_heads_, dim_, window_ = 0, pattern_ = 0;
  double theta_, eps_;
  bool gemma_, interleaved_;
  std::map<std::string, Matrix> tensors_;
};

}  // namespace kvasir::test
