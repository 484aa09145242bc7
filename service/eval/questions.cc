#include "service/eval/questions.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "engine/tokenizer/utf8.h"
#include "retrieval/content_digest.h"
#include "service/did_you_mean.h"
#include "service/eval/item_json.h"

namespace kvasir {
namespace {

namespace json = boost::json;

const std::vector<std::string>& KnownFields() {
  static const std::vector<std::string> fields = {"question", "documents", "answers", "id"};
  return fields;
}

std::string_view View(const json::string& text) { return {text.data(), text.size()}; }

bool IsBlank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

Status CheckBytes(const std::string& what, size_t bytes, uint64_t limit) {
  if (bytes <= limit) return Status::Ok();
  return InvalidArgument(what + " has " + std::to_string(bytes) + " bytes; at most " +
                         std::to_string(limit) + " are allowed");
}

Status CheckCount(const std::string& what, size_t count, uint64_t limit) {
  if (count <= limit) return Status::Ok();
  return InvalidArgument(what + " has " + std::to_string(count) + " entries; at most " +
                         std::to_string(limit) + " are allowed");
}

// A string that is not blank and not too long.
Result<std::string> ReadText(const json::value& value, const std::string& what, uint64_t limit) {
  if (!value.is_string()) return InvalidArgument(what + " must be a string");
  const std::string_view text = View(value.get_string());
  if (IsBlank(text)) return InvalidArgument(what + " is empty");
  KVASIR_RETURN_IF_ERROR(CheckBytes(what, text.size(), limit));
  return std::string(text);
}

Result<EvalDocument> ReadDocument(const json::value& value, const std::string& what,
                                  const QuestionLimits& limits) {
  EvalDocument document;
  if (value.is_string()) {
    KVASIR_ASSIGN_OR_RETURN(document.text, ReadText(value, what, limits.document_bytes));
    return document;
  }
  const json::object* object = value.if_object();
  if (object == nullptr) {
    return InvalidArgument(what + " must be a string, or an object with text and title");
  }
  const json::value* text = object->if_contains("text");
  if (text == nullptr) return InvalidArgument(what + ".text is missing");
  KVASIR_ASSIGN_OR_RETURN(document.text, ReadText(*text, what + ".text", limits.document_bytes));
  const json::value* title = object->if_contains("title");
  if (title == nullptr || title->is_null()) return document;
  if (!title->is_string()) return InvalidArgument(what + ".title must be a string");
  KVASIR_RETURN_IF_ERROR(
      CheckBytes(what + ".title", title->get_string().size(), limits.question_bytes));
  document.title = View(title->get_string());
  return document;
}

Status ReadDocuments(const json::value& value, const QuestionLimits& limits,
                     EvalQuestion* question) {
  const json::array* array = value.if_array();
  if (array == nullptr) return InvalidArgument("documents must be a list");
  if (array->empty()) {
    return InvalidArgument("documents is empty: leave it out to search the collection");
  }
  KVASIR_RETURN_IF_ERROR(CheckCount("documents", array->size(), limits.documents));
  for (size_t i = 0; i < array->size(); ++i) {
    const std::string what = "documents[" + std::to_string(i) + "]";
    KVASIR_ASSIGN_OR_RETURN(EvalDocument document, ReadDocument((*array)[i], what, limits));
    question->documents.push_back(std::move(document));
  }
  question->has_documents = true;
  return Status::Ok();
}

Status ReadAnswers(const json::value& value, const QuestionLimits& limits, EvalQuestion* question) {
  if (value.is_string()) {
    KVASIR_ASSIGN_OR_RETURN(std::string answer, ReadText(value, "answers", limits.answer_bytes));
    question->answers.push_back(std::move(answer));
    return Status::Ok();
  }
  const json::array* array = value.if_array();
  if (array == nullptr) return InvalidArgument("answers must be a string or a list of strings");
  KVASIR_RETURN_IF_ERROR(CheckCount("answers", array->size(), limits.answers));
  for (size_t i = 0; i < array->size(); ++i) {
    const std::string what = "answers[" + std::to_string(i) + "]";
    KVASIR_ASSIGN_OR_RETURN(std::string answer, ReadText((*array)[i], what, limits.answer_bytes));
    question->answers.push_back(std::move(answer));
  }
  return Status::Ok();
}

// A text, or a number as some data sets have it.
Status ReadId(const json::value& value, const QuestionLimits& limits, EvalQuestion* question) {
  if (value.is_int64() || value.is_uint64()) {
    question->id = json::serialize(value);
    return Status::Ok();
  }
  KVASIR_ASSIGN_OR_RETURN(question->id, ReadText(value, "id", limits.id_bytes));
  return Status::Ok();
}

Result<EvalQuestion> ReadQuestion(const json::object& object, int64_t line,
                                  const QuestionLimits& limits) {
  EvalQuestion question;
  question.line = line;
  question.id = "line " + std::to_string(line);
  const json::value* text = object.if_contains("question");
  if (text == nullptr) return InvalidArgument("question is missing");
  KVASIR_ASSIGN_OR_RETURN(question.question, ReadText(*text, "question", limits.question_bytes));
  auto given = [&object](const char* field) {
    const json::value* value = object.if_contains(field);
    return value == nullptr || value->is_null() ? nullptr : value;
  };
  if (const json::value* value = given("documents")) {
    KVASIR_RETURN_IF_ERROR(ReadDocuments(*value, limits, &question));
  }
  if (const json::value* value = given("answers")) {
    KVASIR_RETURN_IF_ERROR(ReadAnswers(*value, limits, &question));
  }
  if (const json::value* value = given("id")) {
    KVASIR_RETURN_IF_ERROR(ReadId(*value, limits, &question));
  }
  return question;
}

// Reads line by line; keeps what is needed across lines.
class Parser {
 public:
  explicit Parser(const QuestionLimits& limits) : limits_(limits) {}

  void Line(std::string_view line) {
    ++line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (IsBlank(line)) return;
    if (file_.questions.size() >= limits_.questions) {
      ++left_out_;
      return;
    }
    const Status status = Add(line);
    if (!status.ok()) file_.bad_lines.push_back({line_, status.message()});
  }

  QuestionFile Finish() {
    for (const auto& [field, lines] : unknown_) {
      file_.warnings.push_back("unknown field '" + field + "' in " + std::to_string(lines) +
                               (lines == 1 ? " line" : " lines") +
                               DidYouMean(field, KnownFields()) +
                               " (fields: question, documents, "
                               "answers, id)");
    }
    if (left_out_ > 0) {
      file_.warnings.push_back("only the first " + std::to_string(limits_.questions) +
                               " questions are taken; " + std::to_string(left_out_) +
                               " more lines are left out");
    }
    return std::move(file_);
  }

 private:
  Status Add(std::string_view line) {
    KVASIR_RETURN_IF_ERROR(CheckBytes("the line", line.size(), limits_.line_bytes));
    KVASIR_RETURN_IF_ERROR(CheckUtf8(line, "the line"));
    KVASIR_ASSIGN_OR_RETURN(const json::value value, ParseJsonText(line));
    const json::object* object = value.if_object();
    if (object == nullptr) return InvalidArgument("a JSON object is expected, {\"question\": ...}");
    KVASIR_ASSIGN_OR_RETURN(EvalQuestion question, ReadQuestion(*object, line_, limits_));
    const auto [known, fresh] = ids_.emplace(question.id, line_);
    if (!fresh) {
      return InvalidArgument("id '" + question.id + "' is taken by line " +
                             std::to_string(known->second));
    }
    CountUnknown(*object);
    file_.questions.push_back(std::move(question));
    return Status::Ok();
  }

  void CountUnknown(const json::object& object) {
    for (const auto& field : object) {
      const std::string name(field.key().data(), field.key().size());
      const auto& known = KnownFields();
      if (std::find(known.begin(), known.end(), name) == known.end()) ++unknown_[name];
    }
  }

  const QuestionLimits& limits_;
  QuestionFile file_;
  int64_t line_ = 0, left_out_ = 0;
  std::map<std::string, int64_t> ids_;      // id -> line
  std::map<std::string, int64_t> unknown_;  // field -> lines
};

// Why there is not one question, and what the file seems to be.
Status NoQuestions(std::string_view text, const QuestionFile& file) {
  if (file.bad_lines.empty()) {
    return InvalidArgument(
        "no questions: the file is empty; a line is an object like "
        "{\"question\": \"...\", \"answers\": [\"...\"]}");
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '[') {
    return InvalidArgument(
        "a JSON list, where JSON Lines are expected: one object a line; "
        "jq -c '.[]' FILE makes them");
  }
  constexpr size_t kShown = 3;
  std::string message = "not one good line;";
  for (size_t i = 0; i < std::min(kShown, file.bad_lines.size()); ++i) {
    message += (i == 0 ? " line " : "; line ") + std::to_string(file.bad_lines[i].line) + ": " +
               file.bad_lines[i].reason;
  }
  if (file.bad_lines.size() > kShown) {
    message += "; and " + std::to_string(file.bad_lines.size() - kShown) + " more";
  }
  return InvalidArgument(message);
}

}  // namespace

std::string Describe(const std::string& file, const BadLine& bad) {
  return file + " line " + std::to_string(bad.line) + ": " + bad.reason;
}

Result<QuestionFile> ParseQuestions(std::string_view text, const QuestionLimits& limits) {
  if (text.size() > limits.file_bytes) {
    return ResourceExhausted("the file has " + std::to_string(text.size()) + " bytes; at most " +
                             std::to_string(limits.file_bytes) + " are allowed: part it");
  }
  std::string_view rest = text;
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
  Parser parser(limits);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    parser.Line(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  QuestionFile file = parser.Finish();
  if (file.questions.empty()) return NoQuestions(text, file);
  file.digest = ContentDigest({text});
  return file;
}

Result<QuestionFile> ReadQuestions(const std::string& path, const QuestionLimits& limits) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return NotFound(path + ": cannot be opened");
  std::string text;
  char buffer[1 << 16];
  while (text.size() <= limits.file_bytes && (in.read(buffer, sizeof buffer), in.gcount() > 0)) {
    text.append(buffer, static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return Unavailable(path + ": cannot be read");
  Result<QuestionFile> file = ParseQuestions(text, limits);
  if (file.ok()) return file;
  return Status(file.status().code(), path + ": " + file.status().message());
}

}  // namespace kvasir
