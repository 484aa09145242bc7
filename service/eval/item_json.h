// JSON of the values of result.h that both the report and the checkpoint hold, and a reader that
// names what is missing. Pure; thread-safe but for ObjectReader, which one thread uses.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"
#include "service/eval/result.h"

namespace kvasir {

// Parses strict UTF-8 JSON of bounded depth. kInvalidArgument says where it breaks.
Result<boost::json::value> ParseJsonText(std::string_view text);

// Reads fields of an object; the first mistake is kept and later reads give defaults.
class ObjectReader {
 public:
  // `where` names the object in errors: "rows[3]". `value` must outlive the reader.
  ObjectReader(const boost::json::value& value, std::string where);

  std::string Text(std::string_view field);
  double Number(std::string_view field);
  int64_t Integer(std::string_view field);
  uint64_t Unsigned(std::string_view field);
  bool Flag(std::string_view field);
  std::optional<double> MaybeNumber(std::string_view field);  // nullopt if absent or null
  // Texts; numbers, of which null reads as NaN.
  std::vector<std::string> Texts(std::string_view field);
  std::vector<double> Numbers(std::string_view field);
  // Null after a mistake.
  const boost::json::array* Array(std::string_view field);
  const boost::json::value* Value(std::string_view field);  // must be there

  void Fail(std::string_view field, std::string_view what);
  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }

 private:
  const boost::json::object* object_ = nullptr;
  std::string where_;
  Status status_;
};

// Null if it is not finite: JSON has no other way to say so.
boost::json::value FiniteOrNull(double number);

boost::json::object ItemToJson(const ItemResult& result);
Result<ItemResult> ItemFromJson(const boost::json::value& value, std::string where);

boost::json::object QuestionToJson(const EvalQuestionText& question);
Result<EvalQuestionText> QuestionFromJson(const boost::json::value& value, std::string where);

}  // namespace kvasir
