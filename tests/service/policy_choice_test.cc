#include "service/policy_choice.h"

#include <gtest/gtest.h>

#include <map>

#include "service/eval/choose.h"

namespace kvasir {
namespace {

class MapStore : public OrderedStore {
 public:
  Result<std::optional<std::string>> Get(std::string_view key) const override {
    const auto at = values.find(std::string(key));
    if (at == values.end()) return std::optional<std::string>();
    return std::optional<std::string>(at->second);
  }
  Status Write(const WriteOperations& operations) override {
    for (const auto& [key, value] : operations.puts) values[key] = value;
    return Status::Ok();
  }
  Status Scan(std::string_view,
              const std::function<bool(std::string_view, std::string_view)>&) const override {
    return Status::Ok();
  }
  std::map<std::string, std::string> values;
};

TEST(PolicyChoices, AreKeptByScope) {
  MapStore store;
  PolicyChoices choices(store);
  const ChoiceScope scope{"model", "books", "fixed 12ab", "int8"};
  EXPECT_FALSE(choices.Find(scope));
  ASSERT_TRUE(
      choices.Put(scope, {"query(0.08)", 0.0123, 0.034, 0.1, 50, "2026-01-01T00:00:00Z"}).ok());
  const auto found = choices.Find(scope);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->policy, "query(0.08)");
  EXPECT_NEAR(found->kl_step1, 0.0123, 1e-6);
  EXPECT_EQ(found->items, 50);
  for (const ChoiceScope& other : {ChoiceScope{"other", "books", "fixed 12ab", "int8"},
                                   {"model", "films", "fixed 12ab", "int8"},
                                   {"model", "books", "anchor", "int8"},
                                   {"model", "books", "fixed 12ab", "f16"}}) {
    EXPECT_FALSE(choices.Find(other));
  }
}

TEST(PolicyChoices, DamagedRecordsAndUnknownPoliciesAreNone) {
  MapStore store;
  PolicyChoices choices(store);
  const ChoiceScope scope{"model", "books", "fixed", "int8"};
  EXPECT_FALSE(choices.Put(scope, {"guess(1)", 0, 0, 0, 1, ""}).ok());
  ASSERT_TRUE(choices.Put(scope, {"concat", 0, 0, 0, 1, ""}).ok());
  store.values.begin()->second[5] ^= 1;
  EXPECT_FALSE(choices.Find(scope));
}

EvalRow Row(const std::string& policy, double kl, double charged,
            const std::string& ingestion = "fixed") {
  EvalRow row{ingestion, policy, "int8", "", {}};
  ItemResult item;
  item.kl = {kl, kl};
  item.charged = charged;
  row.items = {item};
  return row;
}

std::optional<std::string> Chosen(std::vector<EvalRow> rows) {
  EvalReport report;
  report.questions.resize(1);
  report.rows = std::move(rows);
  const auto row = ChooseRow(report, Summarise(report), "fixed", "int8");
  if (!row) return std::nullopt;
  return report.rows[*row].policy;
}

TEST(ChooseRow, TheCheapestThatKeepsTheTargets) {
  EXPECT_EQ(Chosen({Row("concat", 0.1, 0.01), Row("query(0.05)", 0.015, 0.06),
                    Row("query(0.1)", 0.01, 0.11)}),
            "query(0.05)");
}

TEST(ChooseRow, OtherwiseTheClosestOfThoseThatMayBeChosen) {
  EXPECT_EQ(Chosen({Row("concat", 0.5, 0.01), Row("query(0.1)", 0.2, 0.11),
                    Row("query(0.5)", 0.001, 0.51)}),
            "query(0.1)");
  EXPECT_EQ(Chosen({Row("concat", 0.5, 0.01), Row("query(0.1)", 0.001, 0.1, "anchor"),
                    Row("exact", 0, 1)}),
            "concat");
  EXPECT_EQ(Chosen({Row("exact", 0, 0.1)}), std::nullopt);
}

}  // namespace
}  // namespace kvasir
