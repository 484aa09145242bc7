// The part of `kvasir bench` on roofs: which share of what the machine can do at most, measured in
// the same run, each speed is; and the table of it all.
#pragma once

#include <boost/json.hpp>
#include <string>

#include "engine/model/model.h"
#include "kernels/core/dtype.h"
#include "kernels/cpu/roof.h"
#include "service/config.h"

namespace kvasir {

// What a forward pass takes at least, from the model's shapes.
class WorkOf {
 public:
  WorkOf(const Model& model, const Config& config, const Roof& roof);

  // Seconds at the roofs: products of `rows` rows at the rate of their arithmetic (int8 or fp32),
  // attention over `keys` keys a row at that of bf16 (fp32), or the bytes of weights and of
  // `kv_tokens` tokens' KV at that of memory, whichever takes longer. `head_rows` rows want logits.
  double Seconds(double rows, double keys, double kv_tokens, double head_rows) const;

 private:
  double product_rate_, attention_rate_, memory_rate_;  // a second
  double row_products_ = 0, head_products_ = 0;         // operations a row
  double key_products_ = 0;                             // operations a row and key
  double weight_bytes_ = 0, token_bytes_ = 0;
};

// {"prefill_tps": {"512": 0.6, ...}, ...} for the speeds in `body`; `contexts` of batches as there.
boost::json::object SharesOfRoof(const boost::json::object& body, const WorkOf& work);

// One line a speed with its share, then the rest as it is.
std::string BenchTable(const boost::json::object& body);

}  // namespace kvasir
