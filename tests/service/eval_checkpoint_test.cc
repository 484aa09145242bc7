#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "service/eval/checkpoint.h"

namespace kvasir {
namespace {

const EvalIdentity kIdentity = {{"model", "abc"}, {"seed", "1"}, {"policies", "concat"}};

ItemResult MakeResult(int64_t item) {
  ItemResult result;
  result.item = item;
  result.kl = {0.125, 1e-9 * static_cast<double>(item)};
  result.top1_matches = 1;
  result.first_divergence = 3;
  result.free_tokens = 9;
  result.rouge_l = 0.5;
  result.f1_full = 0.25;
  result.gold_loglik = -7.5;
  result.refused = true;
  result.charged = 0.0625;
  result.question_share = 0.015625;
  result.selected = 0.05;
  result.ttft = {100, 1, 2, 3, 4};
  result.text = "said \"so\"\n\xC3";  // ends within a character
  return result;
}

class CheckpointTest : public testing::Test {
 protected:
  ~CheckpointTest() override { unlink(path_.c_str()); }

  std::unique_ptr<Checkpoint> Open(const EvalIdentity& identity = kIdentity, bool restart = false) {
    auto opened = Checkpoint::Open(path_, identity, restart);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    return opened.ok() ? std::move(*opened) : nullptr;
  }
  Status Refusal(const EvalIdentity& identity = kIdentity, bool restart = false) {
    return Checkpoint::Open(path_, identity, restart).status();
  }
  std::string Read() const {
    std::stringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  void Write(const std::string& text) const { std::ofstream(path_) << text; }

  const std::string path_ = testing::TempDir() + "/checkpoint-" + std::to_string(getpid());
};

TEST_F(CheckpointTest, GoesOnWhereItStopped) {
  {
    auto checkpoint = Open();
    EXPECT_EQ(checkpoint->Find("row", 4), nullptr);
    ASSERT_TRUE(checkpoint->Append("row", MakeResult(4)).ok());
    ASSERT_TRUE(checkpoint->Append("other", MakeResult(4)).ok());
    ASSERT_TRUE(checkpoint->AppendQuestion(4, {"q4", "Why?", "Because.", {"So"}}).ok());
  }
  auto checkpoint = Open();
  EXPECT_FALSE(checkpoint->cut_torn_line());
  EXPECT_EQ(checkpoint->results(), 2);
  const ItemResult* found = checkpoint->Find("row", 4);
  ASSERT_NE(found, nullptr);
  const ItemResult expected = MakeResult(4);
  ASSERT_EQ(found->kl.size(), 2u);
  EXPECT_EQ(found->kl[0], 0.125);
  // The reader of decimal numbers may be off by one unit in the last place.
  EXPECT_DOUBLE_EQ(found->kl[1], 4e-9);
  EXPECT_EQ(found->top1_matches, 1);
  EXPECT_EQ(found->first_divergence, 3);
  EXPECT_EQ(found->free_tokens, 9);
  EXPECT_EQ(found->f1_gold, std::nullopt);
  EXPECT_EQ(found->gold_loglik, expected.gold_loglik);
  EXPECT_TRUE(found->refused);
  EXPECT_EQ(found->charged, expected.charged);
  EXPECT_EQ(found->ttft.repair_ms, 3);
  EXPECT_EQ(found->text, "said \"so\"\n\xEF\xBF\xBD");
  ASSERT_NE(checkpoint->FindQuestion(4), nullptr);
  EXPECT_EQ(checkpoint->FindQuestion(4)->full, "Because.");
  EXPECT_EQ(checkpoint->FindQuestion(5), nullptr);
}

TEST_F(CheckpointTest, TornLastLineIsCutOffAndWritingGoesOn) {
  { ASSERT_TRUE(Open()->Append("row", MakeResult(0)).ok()); }
  const std::string whole = Read();
  Write(whole + "{\"row\": \"row\", \"resu");
  {
    auto checkpoint = Open();
    EXPECT_TRUE(checkpoint->cut_torn_line());
    EXPECT_EQ(checkpoint->results(), 1);
    ASSERT_TRUE(checkpoint->Append("row", MakeResult(1)).ok());
  }
  EXPECT_TRUE(Read().starts_with(whole));
  EXPECT_EQ(Open()->results(), 2);
}

// Whatever byte a crash stops at, the file opens and holds the lines that were whole.
TEST_F(CheckpointTest, CutAnywhere) {
  {
    auto checkpoint = Open();
    ASSERT_TRUE(checkpoint->Append("row", MakeResult(0)).ok());
    ASSERT_TRUE(checkpoint->Append("row", MakeResult(1)).ok());
  }
  const std::string whole = Read();
  const size_t header = whole.find('\n') + 1, first = whole.find('\n', header) + 1;
  std::vector<size_t> cuts = {header - 1, header, first - 1, first, whole.size() - 1, whole.size()};
  for (size_t bytes = 0; bytes < whole.size(); bytes += 11) cuts.push_back(bytes);
  for (const size_t bytes : cuts) {
    Write(whole.substr(0, bytes));
    const int64_t expected = bytes < first ? 0 : bytes < whole.size() ? 1 : 2;
    ASSERT_EQ(Open()->results(), expected) << bytes;
  }
}

TEST_F(CheckpointTest, AnotherEvaluationIsRefusedByName) {
  { ASSERT_TRUE(Open()->Append("row", MakeResult(0)).ok()); }
  const std::string before = Read();
  const EvalIdentity other = {{"model", "abc"}, {"seed", "2"}, {"items", "50"}};
  const Status status = Refusal(other);
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("what differs: seed ('1' there, '2' now), items (not there, "
                                  "'50' now), policies (there alone)"),
            std::string::npos)
      << status.message();
  EXPECT_NE(status.message().find("--restart"), std::string::npos);
  EXPECT_EQ(Read(), before);
  EXPECT_EQ(Open(other, true)->results(), 0);
  EXPECT_EQ(Refusal(kIdentity).code(), StatusCode::kFailedPrecondition);
}

TEST_F(CheckpointTest, RestartDropsWhatThereIs) {
  { ASSERT_TRUE(Open()->Append("row", MakeResult(0)).ok()); }
  { EXPECT_EQ(Open(kIdentity, true)->results(), 0); }
  EXPECT_EQ(Open()->results(), 0);
}

TEST_F(CheckpointTest, AForeignFileIsLeftAlone) {
  for (const std::string text : {"my thesis\n", "{\"a\": 1}\nmore\n", "no line break"}) {
    Write(text);
    EXPECT_EQ(Refusal().code(), StatusCode::kFailedPrecondition) << text;
    EXPECT_EQ(Refusal(kIdentity, true).code(), StatusCode::kFailedPrecondition) << text;
    EXPECT_EQ(Read(), text);
  }
}

TEST_F(CheckpointTest, ABrokenLineIsNamed) {
  { ASSERT_TRUE(Open()->Append("row", MakeResult(0)).ok()); }
  const std::string whole = Read();
  for (const std::string bad : {"garbage", "{\"row\": \"r\"}", "{\"row\": \"r\", \"result\": 3}",
                                "{\"row\": \"r\", \"result\": {\"item\": \"no\"}}", "[]"}) {
    Write(whole + bad + "\n" + whole.substr(whole.find('\n') + 1));
    const Status status = Refusal();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << bad;
    EXPECT_NE(status.message().find(path_ + " line 3: "), std::string::npos) << status.message();
  }
}

TEST_F(CheckpointTest, OneWriterAtATime) {
  auto checkpoint = Open();
  const Status status = Refusal();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("in use"), std::string::npos);
  checkpoint.reset();
  EXPECT_TRUE(Refusal().ok());
}

TEST_F(CheckpointTest, RemovedWhenDone) {
  auto checkpoint = Open();
  EXPECT_TRUE(checkpoint->Remove().ok());
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(CheckpointTest, FoldersAndMissingFoldersAreNamed) {
  EXPECT_FALSE(Checkpoint::Open(testing::TempDir(), kIdentity, true).ok());
  const Status status = Checkpoint::Open(path_ + "/no/such", kIdentity, false).status();
  EXPECT_NE(status.message().find(path_ + "/no/such"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
