// PolicyChoices: the policy that an evaluation chose, by model, collection, ingestion condition and
// codec. What `auto` runs under.
//
// Kept in the data folder; records that cannot be read count as none. Thread-safe; the store must
// outlive this.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/core/ordered_store.h"
#include "kernels/core/status.h"

namespace kvasir {

struct ChoiceScope {
  std::string model_digest, collection;
  std::string ingestion;  // condition and the digest of its fixed primer
  std::string codec;
  std::string Key() const;  // 16 bytes
};

struct PolicyChoice {
  std::string policy;                // ParsePolicy reads it
  double kl_step1 = 0, kl_mean = 0;  // nats, as evaluated
  double charged = 0;
  int64_t items = 0;
  std::string when;  // RFC 3339
};

class PolicyChoices {
 public:
  explicit PolicyChoices(OrderedStore& store) : store_(store) {}
  std::optional<PolicyChoice> Find(const ChoiceScope& scope) const;
  Status Put(const ChoiceScope& scope, const PolicyChoice& choice);

 private:
  OrderedStore& store_;
};

}  // namespace kvasir
