#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "service/eval/questions.h"

namespace kvasir {
namespace {

using testing::TempDir;

std::vector<std::string> Reasons(const QuestionFile& file) {
  std::vector<std::string> reasons;
  for (const BadLine& bad : file.bad_lines) reasons.push_back(Describe("f", bad));
  return reasons;
}

TEST(Questions, EveryField) {
  const auto file = ParseQuestions(
      "{\"id\": \"a\", \"question\": \"Why?\", \"documents\": [\"one\", {\"title\": \"T\", "
      "\"text\": \"two\"}], \"answers\": [\"x\", \"y\"]}\n"
      "{\"question\": \"How?\", \"answers\": \"z\", \"id\": 17}\n"
      "{\"question\": \"When?\", \"documents\": null, \"answers\": null, \"id\": null}\n");
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_EQ(file->questions.size(), 3u);
  const EvalQuestion& first = file->questions[0];
  EXPECT_EQ(first.id, "a");
  EXPECT_EQ(first.question, "Why?");
  EXPECT_TRUE(first.has_documents);
  ASSERT_EQ(first.documents.size(), 2u);
  EXPECT_EQ(first.documents[0].text, "one");
  EXPECT_EQ(first.documents[1].title, "T");
  EXPECT_EQ(first.documents[1].text, "two");
  EXPECT_EQ(first.answers, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(file->questions[1].id, "17");
  EXPECT_EQ(file->questions[1].answers, std::vector<std::string>{"z"});
  EXPECT_EQ(file->questions[2].id, "line 3");
  EXPECT_FALSE(file->questions[2].has_documents);
  EXPECT_TRUE(file->bad_lines.empty());
  EXPECT_TRUE(file->warnings.empty());
  EXPECT_EQ(file->digest.size(), 64u);
}

TEST(Questions, MarkCarriageReturnsAndBlankLines) {
  const auto file =
      ParseQuestions("\xEF\xBB\xBF{\"question\": \"1\"}\r\n\r\n   \n\t\n{\"question\": \"2\"}");
  ASSERT_TRUE(file.ok()) << file.status().message();
  ASSERT_EQ(file->questions.size(), 2u);
  EXPECT_EQ(file->questions[0].line, 1);
  EXPECT_EQ(file->questions[1].line, 5);
}

TEST(Questions, BadLinesAreNamedAndTheRestGoesOn) {
  const auto file = ParseQuestions(
      "{\"question\": \"good\", \"id\": \"x\"}\n"
      "{\"question\": \n"
      "[1]\n"
      "{\"answers\": [\"a\"]}\n"
      "{\"question\": 5}\n"
      "{\"question\": \"  \"}\n"
      "{\"question\": \"q\", \"documents\": \"text\"}\n"
      "{\"question\": \"q\", \"documents\": []}\n"
      "{\"question\": \"q\", \"documents\": [3]}\n"
      "{\"question\": \"q\", \"documents\": [\"ok\", {\"title\": \"no text\"}]}\n"
      "{\"question\": \"q\", \"answers\": [7]}\n"
      "{\"question\": \"q\", \"id\": \"x\"}\n"
      "{\"question\": \"q\"} trailing\n"
      "{\"question\": \"q\xFF\"}\n"
      "{\"question\": \"good too\"}\n");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->questions.size(), 2u);
  const std::vector<std::string> reasons = Reasons(*file);
  ASSERT_EQ(reasons.size(), 13u);
  EXPECT_TRUE(reasons[0].starts_with("f line 2: not valid JSON at byte ")) << reasons[0];
  EXPECT_EQ(reasons[1], "f line 3: a JSON object is expected, {\"question\": ...}");
  EXPECT_EQ(reasons[2], "f line 4: question is missing");
  EXPECT_EQ(reasons[3], "f line 5: question must be a string");
  EXPECT_EQ(reasons[4], "f line 6: question is empty");
  EXPECT_EQ(reasons[5], "f line 7: documents must be a list");
  EXPECT_EQ(reasons[6], "f line 8: documents is empty: leave it out to search the collection");
  EXPECT_EQ(reasons[7],
            "f line 9: documents[0] must be a string, or an object with text and title");
  EXPECT_EQ(reasons[8], "f line 10: documents[1].text is missing");
  EXPECT_EQ(reasons[9], "f line 11: answers[0] must be a string");
  EXPECT_EQ(reasons[10], "f line 12: id 'x' is taken by line 1");
  EXPECT_TRUE(reasons[11].starts_with("f line 13: ")) << reasons[11];
  EXPECT_NE(reasons[12].find("UTF-8"), std::string::npos) << reasons[12];
}

TEST(Questions, UnknownFieldsAreWarnedOfOnce) {
  const auto file = ParseQuestions(
      "{\"question\": \"1\", \"answer\": \"a\"}\n{\"question\": \"2\", \"answer\": \"b\"}\n");
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(file->warnings.size(), 1u);
  EXPECT_TRUE(
      file->warnings[0].starts_with("unknown field 'answer' in 2 lines; did you mean 'answers'?"))
      << file->warnings[0];
}

TEST(Questions, LimitsNameWhatIsTooLong) {
  QuestionLimits limits;
  limits.question_bytes = 10;
  limits.document_bytes = 5;
  limits.documents = 2;
  limits.line_bytes = 90;
  limits.questions = 1;
  const auto file = ParseQuestions(
      "{\"question\": \"01234567890\"}\n"
      "{\"question\": \"q\", \"documents\": [\"123456\"]}\n"
      "{\"question\": \"q\", \"documents\": [\"1\", \"2\", \"3\"]}\n" +
          std::string(91, ' ') + "x\n" +
          "{\"question\": \"good\"}\n{\"question\": \"late\"}\n\n{\"question\": \"later\"}\n",
      limits);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(Reasons(*file),
            (std::vector<std::string>{"f line 1: question has 11 bytes; at most 10 are allowed",
                                      "f line 2: documents[0] has 6 bytes; at most 5 are allowed",
                                      "f line 3: documents has 3 entries; at most 2 are allowed",
                                      "f line 4: the line has 92 bytes; at most 90 are allowed"}));
  EXPECT_EQ(file->questions.size(), 1u);
  ASSERT_EQ(file->warnings.size(), 1u);
  EXPECT_EQ(file->warnings[0], "only the first 1 questions are taken; 2 more lines are left out");
  limits.file_bytes = 5;
  const auto too_long = ParseQuestions("{\"question\": \"q\"}", limits);
  EXPECT_EQ(too_long.status().code(), StatusCode::kResourceExhausted);
}

TEST(Questions, NotOneGoodLine) {
  EXPECT_NE(ParseQuestions("").status().message().find("the file is empty"), std::string::npos);
  EXPECT_NE(ParseQuestions("\n[{\"question\": \"q\"}]\n").status().message().find("JSON Lines"),
            std::string::npos);
  const Status status = ParseQuestions("1\n2\n3\n4\n5\n").status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("line 1: "), std::string::npos);
  EXPECT_NE(status.message().find("and 2 more"), std::string::npos);
}

TEST(Questions, TheShippedFileIsGood) {
  const auto file =
      ReadQuestions(std::string(KVASIR_SOURCE_DIR) + "/examples/eval/sqlite_questions.jsonl");
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->questions.size(), 40u);
  EXPECT_TRUE(file->bad_lines.empty());
  EXPECT_TRUE(file->warnings.empty());
  for (const EvalQuestion& question : file->questions) {
    EXPECT_FALSE(question.answers.empty()) << question.id;
    EXPECT_FALSE(question.has_documents) << question.id;
  }
}

TEST(Questions, FilesAreNamed) {
  const std::string path = TempDir() + "/questions-" + std::to_string(getpid()) + ".jsonl";
  std::ofstream(path) << "{\"question\": \"q\"}\n";
  EXPECT_TRUE(ReadQuestions(path).ok());
  std::ofstream(path) << "nothing\n";
  EXPECT_TRUE(ReadQuestions(path).status().message().starts_with(path + ": "));
  unlink(path.c_str());
  EXPECT_EQ(ReadQuestions(path).status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(ReadQuestions(TempDir()).ok());
}

}  // namespace
}  // namespace kvasir
