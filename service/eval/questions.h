// The questions file of `kvasir eval`: JSON Lines, one object a line with `question`, optional
// `documents` (texts, or objects with `text` and optional `title`; without them the collection is
// searched), optional `answers` (a string or several) and optional `id`.
//
// A byte order mark, CRLF and blank lines are fine. Each bad line is reported with its number and
// the rest goes on. Pure functions but for ReadQuestions; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir {

struct EvalDocument {
  std::string title;  // may be ""
  std::string text;
};

struct EvalQuestion {
  std::string id;  // unique in the file; "line 7" where the file gives none
  std::string question;
  bool has_documents = false;
  std::vector<EvalDocument> documents;  // in this order in the prompt
  std::vector<std::string> answers;     // gold; may be empty
  int64_t line = 0;                     // from 1
};

struct BadLine {
  int64_t line = 0;  // from 1
  std::string reason;
};
// "FILE line 3: reason".
std::string Describe(const std::string& file, const BadLine& bad);

struct QuestionFile {
  std::vector<EvalQuestion> questions;
  std::vector<BadLine> bad_lines;
  // Worth a word to the user: "unknown field 'ctxs' in 100 lines; did you mean ...".
  std::vector<std::string> warnings;
  std::string digest;  // SHA-256 of the file's bytes, hex
};

struct QuestionLimits {
  uint64_t file_bytes = uint64_t{256} << 20;
  uint64_t line_bytes = uint64_t{16} << 20;
  uint64_t question_bytes = 64 << 10;
  uint64_t document_bytes = uint64_t{4} << 20;
  uint64_t answer_bytes = 16 << 10;
  uint64_t id_bytes = 256;
  uint64_t documents = 256;  // of one question
  uint64_t answers = 64;
  uint64_t questions = 10000;  // what lies behind is left out, and warned of
};

// kInvalidArgument if there is not one good question: names the first bad lines, or what the file
// seems to be instead. kResourceExhausted if it is too long.
Result<QuestionFile> ParseQuestions(std::string_view text, const QuestionLimits& limits = {});
// Names the file in every error; kNotFound if it cannot be opened.
Result<QuestionFile> ReadQuestions(const std::string& path, const QuestionLimits& limits = {});

}  // namespace kvasir
