#include <cstdio>

#include "gtest/gtest.h"

namespace testing {
namespace {

struct State {
  std::vector<std::pair<std::string, MakeTest>> tests;
  std::vector<std::function<void()>> expansions;
  std::vector<std::string> traces;
  bool failed = false, fatal = false;  // the test that runs
};

State& TheState() {
  static State state;
  return state;
}

bool RunOne(const std::string& name, const MakeTest& make) {
  State& state = TheState();
  state.failed = state.fatal = false;
  const std::unique_ptr<Test> test = make();
  test->SetUp();
  if (!state.fatal) test->TestBody();
  test->TearDown();
  std::printf("%s %s\n", state.failed ? "FAILED" : "ok    ", name.c_str());
  std::fflush(stdout);
  return !state.failed;
}

}  // namespace

bool Test::HasFatalFailure() { return TheState().fatal; }
bool Test::HasFailure() { return TheState().failed; }

void Reporter::operator=(const Message& message) const {
  State& state = TheState();
  state.failed = true;
  state.fatal = state.fatal || fatal_;
  std::printf("%s:%d: %s %s\n", file_, line_, what_.c_str(), message.str().c_str());
  for (const std::string& trace : state.traces) std::printf("  %s\n", trace.c_str());
}

ScopedTrace::ScopedTrace(const char* file, int line, const Message& message) {
  TheState().traces.push_back(std::string(file) + ":" + std::to_string(line) + ": " +
                              message.str());
}
ScopedTrace::~ScopedTrace() { TheState().traces.pop_back(); }

Mismatch Near(const char* what, double a, double b, double most) {
  if (std::fabs(a - b) <= most) return {};  // NaN is near nothing
  return std::string(what) + ": " + Show(a) + " and " + Show(b) + " are more than " + Show(most) +
         " apart";
}

Mismatch FloatsEqual(const char* what, float a, float b) {
  const float unit = std::numeric_limits<float>::epsilon() * std::fmax(std::fabs(a), std::fabs(b));
  return a == b ? Mismatch() : Near(what, a, b, 4.0 * unit);
}

int Register(std::string name, MakeTest make) {
  TheState().tests.emplace_back(std::move(name), std::move(make));
  return 0;
}

int AddExpansion(std::function<void()> expand) {
  TheState().expansions.push_back(std::move(expand));
  return 0;
}

int RunAll(const std::string& filter) {
  State& state = TheState();
  for (const auto& expand : std::exchange(state.expansions, {})) expand();
  int run = 0, failed = 0;
  for (const auto& [name, make] : state.tests) {
    if (name.find(filter) == std::string::npos) continue;
    ++run;
    failed += RunOne(name, make) ? 0 : 1;
  }
  std::printf("%d tests, %d failed\n", run, failed);
  return failed != 0 || run == 0 ? 1 : 0;
}

}  // namespace testing
