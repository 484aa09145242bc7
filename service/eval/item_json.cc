#include "service/eval/item_json.h"

#include <cmath>
#include <limits>

#include "service/eval/clean_text.h"

namespace kvasir {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 32;

std::string ToString(const json::string& text) { return {text.data(), text.size()}; }

double ToDouble(const json::value& value) { return value.to_number<double>(); }

json::array TextsToJson(const std::vector<std::string>& texts) {
  json::array array;
  for (const std::string& text : texts) array.emplace_back(RepairUtf8(text));
  return array;
}

json::object TtftToJson(const TtftSplit& ttft) {
  return {{"total", FiniteOrNull(ttft.total_ms)},
          {"lookup", FiniteOrNull(ttft.lookup_ms)},
          {"load", FiniteOrNull(ttft.load_ms)},
          {"repair", FiniteOrNull(ttft.repair_ms)},
          {"question", FiniteOrNull(ttft.question_ms)}};
}

Status ReadTtft(const json::value* value, std::string where, TtftSplit* ttft) {
  if (value == nullptr) return Status::Ok();
  ObjectReader reader(*value, std::move(where));
  ttft->total_ms = reader.Number("total");
  ttft->lookup_ms = reader.Number("lookup");
  ttft->load_ms = reader.Number("load");
  ttft->repair_ms = reader.Number("repair");
  ttft->question_ms = reader.Number("question");
  return reader.status();
}

Status CheckItem(const ItemResult& result, const std::string& where) {
  if (result.item < 0) return InvalidArgument(where + ".item must not be negative");
  if (result.top1_matches < 0 || result.top1_matches > static_cast<int64_t>(result.kl.size())) {
    return InvalidArgument(where + ".top1_matches must be in [0, length of kl]");
  }
  return Status::Ok();
}

}  // namespace

Result<json::value> ParseJsonText(std::string_view text) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::stream_parser parser({}, options);
  boost::system::error_code error;
  const size_t taken = parser.write_some(text.data(), text.size(), error);
  if (!error && taken == text.size()) parser.finish(error);
  if (error) {
    return InvalidArgument("not valid JSON at byte " + std::to_string(taken + 1) + ": " +
                           error.message());
  }
  if (taken < text.size()) {
    return InvalidArgument("more text behind the JSON value, at byte " + std::to_string(taken + 1));
  }
  return parser.release();
}

json::value FiniteOrNull(double number) {
  return std::isfinite(number) ? json::value(number) : json::value(nullptr);
}

ObjectReader::ObjectReader(const json::value& value, std::string where) : where_(std::move(where)) {
  object_ = value.if_object();
  if (object_ == nullptr) status_ = InvalidArgument(where_ + " must be an object");
}

void ObjectReader::Fail(std::string_view field, std::string_view what) {
  if (!status_.ok()) return;
  const std::string path = where_.empty() ? "" : where_ + ".";
  status_ = InvalidArgument(path + std::string(field) + " " + std::string(what));
}

const json::value* ObjectReader::Value(std::string_view field) {
  if (object_ == nullptr) return nullptr;
  const json::value* value = object_->if_contains({field.data(), field.size()});
  if (value == nullptr) Fail(field, "is missing");
  return value;
}

std::string ObjectReader::Text(std::string_view field) {
  const json::value* value = Value(field);
  if (value == nullptr) return "";
  if (value->is_string()) return ToString(value->get_string());
  Fail(field, "must be a string");
  return "";
}

double ObjectReader::Number(std::string_view field) {
  const json::value* value = Value(field);
  if (value == nullptr) return 0;
  if (value->is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (value->is_number()) return ToDouble(*value);
  Fail(field, "must be a number");
  return 0;
}

int64_t ObjectReader::Integer(std::string_view field) {
  const json::value* value = Value(field);
  if (value == nullptr) return 0;
  if (value->is_int64()) return value->get_int64();
  Fail(field, "must be a whole number in 64 bits");
  return 0;
}

uint64_t ObjectReader::Unsigned(std::string_view field) {
  const json::value* value = Value(field);
  if (value == nullptr) return 0;
  if (value->is_uint64()) return value->get_uint64();
  if (value->is_int64() && value->get_int64() >= 0)
    return static_cast<uint64_t>(value->get_int64());
  Fail(field, "must be a whole number of 0 or more in 64 bits");
  return 0;
}

bool ObjectReader::Flag(std::string_view field) {
  const json::value* value = Value(field);
  if (value == nullptr) return false;
  if (value->is_bool()) return value->get_bool();
  Fail(field, "must be true or false");
  return false;
}

std::optional<double> ObjectReader::MaybeNumber(std::string_view field) {
  if (object_ == nullptr) return std::nullopt;
  const json::value* value = object_->if_contains({field.data(), field.size()});
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (value->is_number()) return ToDouble(*value);
  Fail(field, "must be a number or null");
  return std::nullopt;
}

const json::array* ObjectReader::Array(std::string_view field) {
  const json::value* value = Value(field);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) Fail(field, "must be a list");
  return value->if_array();
}

std::vector<std::string> ObjectReader::Texts(std::string_view field) {
  std::vector<std::string> texts;
  const json::array* array = Array(field);
  if (array == nullptr) return texts;
  for (const json::value& value : *array) {
    if (!value.is_string()) {
      Fail(field, "must be a list of strings");
      return {};
    }
    texts.push_back(ToString(value.get_string()));
  }
  return texts;
}

std::vector<double> ObjectReader::Numbers(std::string_view field) {
  std::vector<double> numbers;
  const json::array* array = Array(field);
  if (array == nullptr) return numbers;
  for (const json::value& value : *array) {
    if (!value.is_number() && !value.is_null()) {
      Fail(field, "must be a list of numbers");
      return {};
    }
    numbers.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN() : ToDouble(value));
  }
  return numbers;
}

json::object ItemToJson(const ItemResult& result) {
  json::array kl;
  for (const double step : result.kl) kl.push_back(FiniteOrNull(step));
  json::object object = {{"item", result.item},
                         {"kl", std::move(kl)},
                         {"top1_matches", result.top1_matches},
                         {"first_divergence", result.first_divergence},
                         {"free_tokens", result.free_tokens},
                         {"rouge_l", FiniteOrNull(result.rouge_l)},
                         {"f1_full", FiniteOrNull(result.f1_full)},
                         {"refused", result.refused},
                         {"charged", FiniteOrNull(result.charged)},
                         {"question_share", FiniteOrNull(result.question_share)},
                         {"selected", FiniteOrNull(result.selected)},
                         {"ttft_ms", TtftToJson(result.ttft)},
                         {"text", RepairUtf8(result.text)}};
  if (result.f1_gold) object["f1_gold"] = FiniteOrNull(*result.f1_gold);
  if (result.gold_loglik) object["gold_loglik"] = FiniteOrNull(*result.gold_loglik);
  return object;
}

Result<ItemResult> ItemFromJson(const json::value& value, std::string where) {
  ObjectReader reader(value, std::move(where));
  ItemResult result;
  result.item = reader.Integer("item");
  result.kl = reader.Numbers("kl");
  result.top1_matches = reader.Integer("top1_matches");
  result.first_divergence = reader.Integer("first_divergence");
  result.free_tokens = reader.Integer("free_tokens");
  result.rouge_l = reader.Number("rouge_l");
  result.f1_full = reader.Number("f1_full");
  result.f1_gold = reader.MaybeNumber("f1_gold");
  result.gold_loglik = reader.MaybeNumber("gold_loglik");
  result.refused = reader.Flag("refused");
  result.charged = reader.Number("charged");
  result.question_share = reader.Number("question_share");
  result.selected = reader.Number("selected");
  result.text = reader.Text("text");
  const json::value* ttft = reader.Value("ttft_ms");
  KVASIR_RETURN_IF_ERROR(reader.status());
  KVASIR_RETURN_IF_ERROR(ReadTtft(ttft, reader.where() + ".ttft_ms", &result.ttft));
  KVASIR_RETURN_IF_ERROR(CheckItem(result, reader.where()));
  return result;
}

json::object QuestionToJson(const EvalQuestionText& question) {
  return {{"id", RepairUtf8(question.id)},
          {"question", RepairUtf8(question.question)},
          {"full", RepairUtf8(question.full)},
          {"answers", TextsToJson(question.answers)}};
}

Result<EvalQuestionText> QuestionFromJson(const json::value& value, std::string where) {
  ObjectReader reader(value, std::move(where));
  EvalQuestionText question;
  question.id = reader.Text("id");
  question.question = reader.Text("question");
  question.full = reader.Text("full");
  question.answers = reader.Texts("answers");
  KVASIR_RETURN_IF_ERROR(reader.status());
  return question;
}

}  // namespace kvasir
