#include "service/policy_choice.h"

#include "cache/digest.h"
#include "cache/fusion_policy.h"
#include "retrieval/record.h"

namespace kvasir {
namespace {

constexpr RecordKind kChoiceRecord{0xD2};
constexpr double kMillionth = 1e-6;  // unit of the numbers in a record

int64_t ToInt(double value) { return static_cast<int64_t>(value / kMillionth + 0.5); }

Result<PolicyChoice> Decode(std::string_view bytes) {
  KVASIR_ASSIGN_OR_RETURN(RecordReader reader,
                          RecordReader::Open(kChoiceRecord, bytes, "a chosen policy"));
  PolicyChoice choice;
  choice.policy = reader.Text();
  for (double* value : {&choice.kl_step1, &choice.kl_mean, &choice.charged}) {
    *value = static_cast<double>(reader.Int()) * kMillionth;
  }
  choice.items = reader.Int();
  choice.when = reader.Text();
  KVASIR_RETURN_IF_ERROR(reader.Finish());
  KVASIR_RETURN_IF_ERROR(ParsePolicy(choice.policy).status());
  return choice;
}

}  // namespace

std::string ChoiceScope::Key() const {
  DigestBuilder digest("policy choice");
  digest.Add("model", model_digest).Add("collection", collection);
  return digest.Add("ingestion", ingestion).Add("codec", codec).Finish().Bytes();
}

std::optional<PolicyChoice> PolicyChoices::Find(const ChoiceScope& scope) const {
  const auto bytes = store_.Get(scope.Key());
  if (!bytes.ok() || !bytes->has_value()) return std::nullopt;
  Result<PolicyChoice> choice = Decode(**bytes);
  if (!choice.ok()) return std::nullopt;
  return *std::move(choice);
}

Status PolicyChoices::Put(const ChoiceScope& scope, const PolicyChoice& choice) {
  KVASIR_RETURN_IF_ERROR(ParsePolicy(choice.policy).status());
  RecordWriter writer(kChoiceRecord);
  writer.Text(choice.policy);
  for (const double value : {choice.kl_step1, choice.kl_mean, choice.charged}) {
    writer.Int(ToInt(value));
  }
  writer.Int(choice.items);
  writer.Text(choice.when);
  return store_.Write({{{scope.Key(), writer.Finish()}}, {}});
}

}  // namespace kvasir
