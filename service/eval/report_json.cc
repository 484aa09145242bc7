#include "service/eval/report_json.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "service/eval/item_json.h"
#include "service/eval/report_calibration.h"

namespace kvasir {
namespace {

namespace json = boost::json;

json::value NumberOrNull(const std::optional<Estimate>& estimate) {
  return estimate ? FiniteOrNull(estimate->value) : json::value(nullptr);
}

json::array Interval(const Estimate& estimate) {
  return {FiniteOrNull(estimate.low), FiniteOrNull(estimate.high)};
}

json::object ValueAndInterval(const Estimate& estimate) {
  return {{"value", FiniteOrNull(estimate.value)}, {"ci95", Interval(estimate)}};
}

// Sets object[name]; a name "a.b" sets field b of the object in field a.
void SetAt(std::string_view name, json::value value, json::object* object) {
  const size_t dot = name.find('.');
  if (dot == std::string_view::npos) {
    (*object)[{name.data(), name.size()}] = std::move(value);
    return;
  }
  json::value& inner = (*object)[{name.data(), dot}];
  if (!inner.is_object()) inner.emplace_object();
  const std::string_view rest = name.substr(dot + 1);
  inner.get_object()[{rest.data(), rest.size()}] = std::move(value);
}

json::object RowToJson(const EvalRow& row, const RowSummary& summary) {
  json::object object = {{"ingestion", row.ingestion},
                         {"policy", row.policy},
                         {"codec", row.codec},
                         {"note", row.note},
                         {"items", summary.items}};
  json::object intervals, vs_concat;
  for (size_t i = 0; i < kEvalMetrics; ++i) {
    const std::string_view name = MetricName(static_cast<EvalMetric>(i));
    SetAt(name, NumberOrNull(summary.metrics[i]), &object);
    if (summary.metrics[i]) SetAt(name, Interval(*summary.metrics[i]), &intervals);
    if (summary.vs_concat[i]) SetAt(name, ValueAndInterval(*summary.vs_concat[i]), &vs_concat);
  }
  object["speedup"] = NumberOrNull(summary.speedup);
  if (summary.speedup) intervals["speedup"] = Interval(*summary.speedup);
  object["ci95"] = std::move(intervals);
  object["vs_concat"] = vs_concat.empty() ? json::value(nullptr) : json::value(vs_concat);
  json::array items;
  for (const ItemResult& result : row.items) items.push_back(ItemToJson(result));
  object["per_item"] = std::move(items);
  return object;
}

json::object ReportObject(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  json::object object = {{"model", report.model},
                         {"model_digest", report.model_digest},
                         {"isa", report.isa},
                         {"seed", report.seed},
                         {"items", report.questions.size()},
                         {"steps", report.steps},
                         {"questions_file", report.questions_file},
                         {"system_text", report.system_text},
                         {"chunk_tokens", report.chunk_tokens},
                         {"started", report.started}};
  json::object config;
  for (const auto& [name, value] : report.config) config[name] = value;
  object["config"] = std::move(config);
  json::array rows, questions;
  for (size_t i = 0; i < report.rows.size(); ++i) {
    rows.push_back(RowToJson(report.rows[i], summaries[i]));
  }
  for (const EvalQuestionText& question : report.questions) {
    questions.push_back(QuestionToJson(question));
  }
  object["rows"] = std::move(rows);
  object["questions"] = std::move(questions);
  if (!report.calibrations.empty()) {
    json::array& calibrations = object["calibrations"].emplace_array();
    for (const auto& one : report.calibrations) calibrations.push_back(CalibrationToJson(one));
  }
  return object;
}

// Twelve digits, which survive reading and writing again.
std::string NumberText(double number) {
  char text[40];
  std::snprintf(text, sizeof text, "%.12g", number);
  return text;
}

// Levels down to `deep` one field or entry a line, what is below in one line.
class Printer {
 public:
  std::string Print(const json::value& value, int deep) {
    Value(value, deep, "\n");
    return std::move(out_);
  }

 private:
  void Value(const json::value& value, int deep, const std::string& line) {
    if (value.is_object()) {
      Entries(value.get_object(), "{}", deep, line, [&](const auto& field, const auto& inner) {
        out_ += json::serialize(json::value(field.key())) + ": ";
        Value(field.value(), deep - 1, inner);
      });
    } else if (value.is_array()) {
      Entries(value.get_array(), "[]", deep, line,
              [&](const auto& entry, const auto& inner) { Value(entry, deep - 1, inner); });
    } else {
      out_ += value.is_double() ? NumberText(value.get_double()) : json::serialize(value);
    }
  }

  // `line` is a line break with the indent of what is around.
  template <typename Container, typename PrintOne>
  void Entries(const Container& container, const char* brackets, int deep, const std::string& line,
               PrintOne print_one) {
    const std::string inner = deep > 0 ? line + "  " : "";
    out_ += brackets[0];
    bool first = true;
    for (const auto& entry : container) {
      if (!first) out_ += deep > 0 ? "," : ", ";
      first = false;
      out_ += inner;
      print_one(entry, inner);
    }
    if (deep > 0 && !first) out_ += line;
    out_ += brackets[1];
  }

  std::string out_;
};

Result<EvalRow> ReadRow(const json::value& value, const std::string& where) {
  ObjectReader reader(value, where);
  EvalRow row;
  row.ingestion = reader.Text("ingestion");
  row.policy = reader.Text("policy");
  row.codec = reader.Text("codec");
  row.note = reader.Text("note");
  const json::array* items = reader.Array("per_item");
  KVASIR_RETURN_IF_ERROR(reader.status());
  for (size_t i = 0; i < items->size(); ++i) {
    const std::string what = where + ".per_item[" + std::to_string(i) + "]";
    KVASIR_ASSIGN_OR_RETURN(ItemResult item, ItemFromJson((*items)[i], what));
    row.items.push_back(std::move(item));
  }
  return row;
}

void ReadHead(ObjectReader* reader, EvalReport* report) {
  report->model = reader->Text("model");
  report->model_digest = reader->Text("model_digest");
  report->isa = reader->Text("isa");
  report->seed = reader->Unsigned("seed");
  report->steps = reader->Integer("steps");
  report->questions_file = reader->Text("questions_file");
  report->system_text = reader->Text("system_text");
  report->chunk_tokens = reader->Integer("chunk_tokens");
  report->started = reader->Text("started");
  const json::value* config = reader->Value("config");
  if (config == nullptr) return;
  if (!config->is_object()) return reader->Fail("config", "must be an object");
  for (const auto& field : config->get_object()) {
    if (!field.value().is_string()) return reader->Fail("config", "must hold strings alone");
    report->config.emplace_back(std::string(std::string_view(field.key())),
                                std::string(std::string_view(field.value().get_string())));
  }
}

// Reports without calibration have none.
Status ReadCalibrations(const json::value& value, EvalReport* report) {
  if (!value.get_object().contains("calibrations")) return Status::Ok();
  ObjectReader reader(value, "");
  const json::array* calibrations = reader.Array("calibrations");
  KVASIR_RETURN_IF_ERROR(reader.status());
  for (size_t i = 0; i < calibrations->size(); ++i) {
    const std::string where = "calibrations[" + std::to_string(i) + "]";
    KVASIR_ASSIGN_OR_RETURN(report->calibrations.emplace_back(),
                            CalibrationFromJson((*calibrations)[i], where));
  }
  return Status::Ok();
}

}  // namespace

std::string ReportToJson(const EvalReport& report, const std::vector<RowSummary>& summaries) {
  KVASIR_CHECK(summaries.size() == report.rows.size());
  constexpr int kDeep = 4;  // the report, its rows, a row's fields, its items
  return Printer().Print(ReportObject(report, summaries), kDeep) + "\n";
}

Result<EvalReport> ReportFromJson(std::string_view text) {
  KVASIR_ASSIGN_OR_RETURN(const json::value value, ParseJsonText(text));
  if (!value.is_object()) return InvalidArgument("a report of kvasir eval is a JSON object");
  ObjectReader reader(value, "");
  EvalReport report;
  ReadHead(&reader, &report);
  const json::array* questions = reader.Array("questions");
  const json::array* rows = reader.Array("rows");
  KVASIR_RETURN_IF_ERROR(reader.status());
  for (size_t i = 0; i < questions->size(); ++i) {
    const std::string where = "questions[" + std::to_string(i) + "]";
    KVASIR_ASSIGN_OR_RETURN(EvalQuestionText question, QuestionFromJson((*questions)[i], where));
    report.questions.push_back(std::move(question));
  }
  for (size_t i = 0; i < rows->size(); ++i) {
    KVASIR_ASSIGN_OR_RETURN(EvalRow row, ReadRow((*rows)[i], "rows[" + std::to_string(i) + "]"));
    report.rows.push_back(std::move(row));
  }
  KVASIR_RETURN_IF_ERROR(ReadCalibrations(value, &report));
  return report;
}

Result<EvalReport> ReadReport(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFound(path + ": cannot be opened");
  std::stringstream text;
  text << in.rdbuf();
  Result<EvalReport> report = ReportFromJson(text.str());
  if (report.ok()) return report;
  return Status(report.status().code(), path + ": " + report.status().message());
}

}  // namespace kvasir
