// The stand-in for GoogleTest on itself: what should fail does, and what follows a fatal failure is
// not run. Run by stand_in_test.py, which reads what is printed.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

TEST(Plain, Holds) {
  EXPECT_EQ(1 + 1, 2);
  EXPECT_TRUE(std::string("a") == "a");
  EXPECT_NEAR(1.0, 1.1, 0.2);
  ASSERT_FLOAT_EQ(1.0f, 1.0000001f);
  EXPECT_FALSE(testing::Test::HasFatalFailure());
}

TEST(Plain, GoesOnBehindAnExpectation) {
  EXPECT_EQ(1, 2) << "as said";
  std::printf("went on\n");
}

TEST(Plain, StopsAtAnAssertion) {
  SCOPED_TRACE(testing::Message() << "case " << 7);
  ASSERT_NEAR(0.0, std::numeric_limits<double>::quiet_NaN(), 1.0);
  std::printf("must not be printed\n");
}

class Twice : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { seen_ = GetParam(); }
  std::string seen_;
};

TEST_P(Twice, SeesItsParameter) { EXPECT_EQ(seen_, GetParam()); }
TEST_P(Twice, FailsForOne) { EXPECT_NE(seen_, "b"); }

INSTANTIATE_TEST_SUITE_P(Both, Twice, testing::ValuesIn(std::vector<std::string>{"a", "b"}),
                         [](const auto& info) { return info.param; });

int main(int argc, char** argv) { return testing::RunAll(argc > 1 ? argv[1] : ""); }
