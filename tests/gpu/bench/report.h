// Report: the figures of one run as a table and as JSON. A rate keeps the work and the time that it
// was worked out from. What an emulation gives is never shown as a card's.
//
// Not thread-safe.
#pragma once

#include <string>
#include <vector>

#include "kernels/core/status.h"

namespace kvasir::bench {

struct Figure {
  std::string section, name, unit;
  double value = 0;
  double work = 0, seconds = 0;  // value = work / seconds in `unit`; 0 = it is no rate
};

// What was promised of a card.
struct Bar {
  std::string name, unit;
  double value = 0, wanted = 0;
  bool at_most = false;  // else at least
  bool met() const { return at_most ? value <= wanted : value >= wanted; }
};

class Report {
 public:
  // `measured`: on a card.
  Report(std::string device, bool measured) : device_(std::move(device)), measured_(measured) {}

  void Describe(std::string key, std::string value);  // of the run: commit, driver, date
  void Section(std::string name);                     // of the figures that follow
  void Add(const std::string& name, double value, const std::string& unit);
  // work / seconds: bytes as "GB/s" or "TB/s", operations as "TFLOP/s", others as they are. Returns
  // work a second.
  double AddRate(const std::string& name, double work, double seconds, const std::string& unit);
  void Expect(Bar bar) { bars_.push_back(std::move(bar)); }
  // A section that could not be run, and why.
  void Missing(const Status& why);

  std::string Text() const;
  std::string Json() const;

 private:
  std::string device_, section_;
  bool measured_;
  std::vector<std::pair<std::string, std::string>> facts_;
  std::vector<Figure> figures_;
  std::vector<Bar> bars_;
  std::vector<std::pair<std::string, std::string>> missing_;  // section, why
};

}  // namespace kvasir::bench
