// What the conformance suite uses of GoogleTest, so that it builds on a machine with a card and
// nothing but compilers. One thread; failures are printed as they happen.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace testing {

class Message {
 public:
  template <typename T>
  Message& operator<<(const T& value) {
    stream_ << value;
    return *this;
  }
  std::string str() const { return stream_.str(); }
  friend std::ostream& operator<<(std::ostream& out, const Message& message) {
    return out << message.str();
  }

 private:
  std::ostringstream stream_;
};

class Test {
 public:
  virtual ~Test() = default;
  virtual void SetUp() {}
  virtual void TearDown() {}
  virtual void TestBody() = 0;
  static bool HasFatalFailure();
  static bool HasFailure();
};

template <typename T>
class TestWithParam : public Test {
 public:
  using ParamType = T;
  static const T& GetParam() { return *Current(); }
  static const T*& Current() {
    static const T* current = nullptr;
    return current;
  }
};

template <typename T>
struct TestParamInfo {
  const T& param;
  size_t index;
};

template <typename T>
std::vector<T> ValuesIn(std::vector<T> values) {
  return values;
}

// ---- what fails

// A comparison that did not hold; empty = it did.
using Mismatch = std::string;

class Reporter {
 public:
  Reporter(bool fatal, const char* file, int line, Mismatch what)
      : fatal_(fatal), file_(file), line_(line), what_(std::move(what)) {}
  void operator=(const Message& message) const;  // reports

 private:
  const bool fatal_;
  const char* const file_;
  const int line_;
  const Mismatch what_;
};

class ScopedTrace {
 public:
  ScopedTrace(const char* file, int line, const Message& message);
  ~ScopedTrace();
};

template <typename T>
std::string Show(const T& value) {
  if constexpr (requires(std::ostream & out) { out << value; }) {
    std::ostringstream out;
    out.precision(std::numeric_limits<double>::max_digits10);
    out << value;
    return out.str();
  } else {
    return "a value of " + std::to_string(sizeof value) + " bytes";
  }
}

template <typename A, typename B, typename Holds>
Mismatch Compare(const char* what, const A& a, const B& b, const Holds& holds) {
  if (holds(a, b)) return {};
  return std::string(what) + ": " + Show(a) + " and " + Show(b);
}
inline Mismatch Truth(const char* what, bool value, bool wanted) {
  return value == wanted ? Mismatch() : std::string(what) + (value ? " is true" : " is false");
}
Mismatch Near(const char* what, double a, double b, double most);
Mismatch FloatsEqual(const char* what, float a, float b);  // within 4 units in the last place

// ---- which tests there are

using MakeTest = std::function<std::unique_ptr<Test>()>;
int Register(std::string name, MakeTest make);

// Tests of a parametrised fixture, until its parameters are known.
template <typename Fixture>
std::vector<std::pair<std::string, MakeTest>>& Parametrised() {
  static std::vector<std::pair<std::string, MakeTest>> tests;
  return tests;
}

template <typename Fixture>
int AddParametrised(std::string name, MakeTest make) {
  Parametrised<Fixture>().emplace_back(std::move(name), std::move(make));
  return 0;
}

// Called once every test is known.
int AddExpansion(std::function<void()> expand);

template <typename Fixture, typename Name>
int Instantiate(std::string prefix, std::vector<typename Fixture::ParamType> values, Name name) {
  using Param = typename Fixture::ParamType;
  const auto kept = std::make_shared<const std::vector<Param>>(std::move(values));
  return AddExpansion([prefix, kept, name] {
    for (size_t i = 0; i < kept->size(); ++i) {
      const Param* const param = &(*kept)[i];
      for (const auto& [test, make] : Parametrised<Fixture>()) {
        Register(prefix + "/" + test + "/" + name(TestParamInfo<Param>{*param, i}),
                 [kept, param, make = make] {
                   TestWithParam<Param>::Current() = param;
                   return make();
                 });
      }
    }
  });
}

// Runs every test whose name holds `filter`; the exit status.
int RunAll(const std::string& filter);

}  // namespace testing

#define KVASIR_TEST_CLASS(fixture, name, base, enlist)                             \
  class fixture##_##name##_Test final : public base {                              \
    void TestBody() override;                                                      \
    static const int registered_;                                                  \
  };                                                                               \
  const int fixture##_##name##_Test::registered_ = enlist(#fixture "." #name, [] { \
    return std::unique_ptr<::testing::Test>(new fixture##_##name##_Test);          \
  });                                                                              \
  void fixture##_##name##_Test::TestBody()
#define TEST(suite, name) KVASIR_TEST_CLASS(suite, name, ::testing::Test, ::testing::Register)
#define TEST_F(fixture, name) KVASIR_TEST_CLASS(fixture, name, fixture, ::testing::Register)
#define TEST_P(fixture, name) \
  KVASIR_TEST_CLASS(fixture, name, fixture, ::testing::AddParametrised<fixture>)
#define INSTANTIATE_TEST_SUITE_P(prefix, fixture, ...) \
  static const int kvasir_##prefix##_##fixture =       \
      ::testing::Instantiate<fixture>(#prefix, __VA_ARGS__)

#define KVASIR_CHECKED(mismatch, fail, fatal)                                    \
  switch (0)                                                                     \
  case 0:                                                                        \
  default:                                                                       \
    if (const ::testing::Mismatch kvasir_what = (mismatch); kvasir_what.empty()) \
      ;                                                                          \
    else                                                                         \
      fail ::testing::Reporter(fatal, __FILE__, __LINE__, kvasir_what) = ::testing::Message()
#define KVASIR_EXPECT(mismatch) KVASIR_CHECKED(mismatch, , false)
#define KVASIR_ASSERT(mismatch) KVASIR_CHECKED(mismatch, return, true)
#define KVASIR_COMPARED(a, b, op)                                                              \
  ::testing::Compare(#a " " #op " " #b, a, b, [](const auto& kvasir_a, const auto& kvasir_b) { \
    return kvasir_a op kvasir_b;                                                               \
  })

#define EXPECT_EQ(a, b) KVASIR_EXPECT(KVASIR_COMPARED(a, b, ==))
#define EXPECT_NE(a, b) KVASIR_EXPECT(KVASIR_COMPARED(a, b, !=))
#define EXPECT_LT(a, b) KVASIR_EXPECT(KVASIR_COMPARED(a, b, <))
#define EXPECT_LE(a, b) KVASIR_EXPECT(KVASIR_COMPARED(a, b, <=))
#define EXPECT_GT(a, b) KVASIR_EXPECT(KVASIR_COMPARED(a, b, >))
#define EXPECT_GE(a, b) KVASIR_EXPECT(KVASIR_COMPARED(a, b, >=))
#define EXPECT_TRUE(a) KVASIR_EXPECT(::testing::Truth(#a, static_cast<bool>(a), true))
#define EXPECT_FALSE(a) KVASIR_EXPECT(::testing::Truth(#a, static_cast<bool>(a), false))
#define EXPECT_NEAR(a, b, most) KVASIR_EXPECT(::testing::Near(#a " near " #b, a, b, most))
#define EXPECT_FLOAT_EQ(a, b) KVASIR_EXPECT(::testing::FloatsEqual(#a " == " #b, a, b))
#define ASSERT_EQ(a, b) KVASIR_ASSERT(KVASIR_COMPARED(a, b, ==))
#define ASSERT_NE(a, b) KVASIR_ASSERT(KVASIR_COMPARED(a, b, !=))
#define ASSERT_LT(a, b) KVASIR_ASSERT(KVASIR_COMPARED(a, b, <))
#define ASSERT_LE(a, b) KVASIR_ASSERT(KVASIR_COMPARED(a, b, <=))
#define ASSERT_GT(a, b) KVASIR_ASSERT(KVASIR_COMPARED(a, b, >))
#define ASSERT_GE(a, b) KVASIR_ASSERT(KVASIR_COMPARED(a, b, >=))
#define ASSERT_TRUE(a) KVASIR_ASSERT(::testing::Truth(#a, static_cast<bool>(a), true))
#define ASSERT_FALSE(a) KVASIR_ASSERT(::testing::Truth(#a, static_cast<bool>(a), false))
#define ASSERT_NEAR(a, b, most) KVASIR_ASSERT(::testing::Near(#a " near " #b, a, b, most))
#define ASSERT_FLOAT_EQ(a, b) KVASIR_ASSERT(::testing::FloatsEqual(#a " == " #b, a, b))

#define KVASIR_JOINED_INNER(a, b) a##b
#define KVASIR_JOINED(a, b) KVASIR_JOINED_INNER(a, b)
#define SCOPED_TRACE(message)                                          \
  const ::testing::ScopedTrace KVASIR_JOINED(kvasir_trace_, __LINE__)( \
      __FILE__, __LINE__, ::testing::Message() << (message))
