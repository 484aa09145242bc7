#include "tests/gpu/bench/report.h"

#include <cstdio>
#include <utility>

namespace kvasir::bench {
namespace {

double UnitOf(const std::string& unit) {
  if (unit == "TB/s" || unit == "TFLOP/s") return 1e12;
  return unit == "GB/s" ? 1e9 : 1;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  const std::string shown = text;
  return shown.find_first_of("in") == std::string::npos ? shown : "null";  // inf, nan
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + '"';
}

std::string Line(const char* format, const std::string& name, double value,
                 const std::string& unit) {
  char text[200];
  std::snprintf(text, sizeof text, format, name.c_str(), value, unit.c_str());
  return text;
}

std::string Field(const char* name, const std::string& value) {
  return Quoted(name) + ": " + value;
}

template <typename Items, typename Body>
std::string Array(const Items& items, const Body& body) {
  std::string out;
  for (const auto& item : items) {
    out.append(out.empty() ? "[\n" : ",\n").append("    {").append(body(item)).append("}");
  }
  return out.empty() ? "[]" : out.append("\n  ]");
}

}  // namespace

void Report::Describe(std::string key, std::string value) {
  facts_.emplace_back(std::move(key), std::move(value));
}

void Report::Section(std::string name) {
  section_ = std::move(name);
  std::fprintf(stderr, "-- %s\n", section_.c_str());
}

void Report::Add(const std::string& name, double value, const std::string& unit) {
  figures_.push_back({section_, name, unit, value});
  std::fprintf(stderr, "%s\n", Line("   %s: %.4g %s", name, value, unit).c_str());
}

double Report::AddRate(const std::string& name, double work, double seconds,
                       const std::string& unit) {
  const double rate = work / seconds;
  Add(name, rate / UnitOf(unit), unit);
  figures_.back().work = work;
  figures_.back().seconds = seconds;
  return rate;
}

void Report::Missing(const Status& why) {
  missing_.emplace_back(section_, why.ToString());
  std::fprintf(stderr, "   %s\n", why.ToString().c_str());
}

std::string Report::Text() const {
  std::string out = device_ + "\n";
  if (!measured_) out += "EMULATION: these figures are not a card's, they test this program.\n";
  for (const auto& [key, value] : facts_) out.append(key).append(": ").append(value).append("\n");
  std::string section;
  for (const Figure& figure : figures_) {
    if (figure.section != section) out.append("\n").append(section = figure.section).append("\n");
    out += Line("  %-66s %10.4g %s\n", figure.name, figure.value, figure.unit);
  }
  for (const auto& [what, why] : missing_) {
    out.append("\n").append(what).append(": not run: ").append(why).append("\n");
  }
  out += "\nBars\n";
  for (const Bar& bar : bars_) {
    out += Line("  %-66s %10.4g %s", bar.name, bar.value, bar.unit);
    out +=
        Line(bar.at_most ? "%s (at most %.4g%s): " : "%s (at least %.4g%s): ", "", bar.wanted, "");
    out.append(!measured_ ? "not measured" : bar.met() ? "met" : "MISSED").append("\n");
  }
  return out;
}

std::string Report::Json() const {
  std::string out = "{\n  " + Field("device", Quoted(device_)) + ",\n  ";
  out += Field("measured", measured_ ? "true" : "false") + ",\n  ";
  for (const auto& [key, value] : facts_) out += Field(key.c_str(), Quoted(value)) + ",\n  ";
  out += Field("figures", Array(figures_,
                                [](const Figure& f) {
                                  return Field("section", Quoted(f.section)) + ", " +
                                         Field("name", Quoted(f.name)) + ", " +
                                         Field("value", Number(f.value)) + ", " +
                                         Field("unit", Quoted(f.unit)) + ", " +
                                         Field("work", Number(f.work)) + ", " +
                                         Field("seconds", Number(f.seconds));
                                })) +
         ",\n  ";
  out += Field("missing", Array(missing_,
                                [](const auto& m) {
                                  return Field("section", Quoted(m.first)) + ", " +
                                         Field("why", Quoted(m.second));
                                })) +
         ",\n  ";
  out += Field("bars", Array(bars_, [this](const Bar& b) {
                 return Field("name", Quoted(b.name)) + ", " + Field("value", Number(b.value)) +
                        ", " + Field(b.at_most ? "at_most" : "at_least", Number(b.wanted)) + ", " +
                        Field("unit", Quoted(b.unit)) + ", " +
                        Field("met", !measured_ ? "null"
                                     : b.met()  ? "true"
                                                : "false");
               }));
  return out + "\n}\n";
}

}  // namespace kvasir::bench
