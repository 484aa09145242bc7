#include "service/eval/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "engine/tokenizer/utf8.h"
#include "service/eval/clean_text.h"
#include "service/text_table.h"

namespace kvasir {
namespace {

constexpr double kCharacterWidth = 6.6, kLineHeight = 14;  // of labels, 12 pixels high

std::string Attribute(std::string_view name, double value) {
  return " " + std::string(name) + "=\"" + Pixels(value) + "\"";
}

std::string Class(std::string_view style) { return " class=\"" + std::string(style) + "\""; }

std::string Tip(std::string_view tip) {
  return tip.empty() ? "" : "<title>" + EscapeHtml(tip) + "</title>";
}

std::string_view AnchorName(Anchor anchor) {
  return anchor == Anchor::kStart ? "start" : anchor == Anchor::kMiddle ? "middle" : "end";
}

std::string MarkerPath(Marker marker, double x, double y) {
  auto at = [x, y](double dx, double dy) { return Pixels(x + dx) + " " + Pixels(y + dy); };
  switch (marker) {
    case Marker::kCircle:
      return "M" + at(-5, 0) + "a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z";
    case Marker::kSquare:
      return "M" + at(-4.5, -4.5) + "h9v9h-9Z";
    case Marker::kTriangle:
      return "M" + at(0, -6) + "L" + at(5.5, 4) + "L" + at(-5.5, 4) + "Z";
    case Marker::kDiamond:
      return "M" + at(0, -6.5) + "L" + at(6, 0) + "L" + at(0, 6.5) + "L" + at(-6, 0) + "Z";
    case Marker::kTriangleDown:
      return "M" + at(0, 6) + "L" + at(5.5, -4) + "L" + at(-5.5, -4) + "Z";
    case Marker::kCross:
      return "M" + at(-2, -6) + "h4v4h4v4h-4v4h-4v-4h-4v-4h4Z";
  }
  return "";
}

// The label's box if its baseline is anchored at (x, y).
SvgBox LabelBox(double x, double y, Anchor anchor, std::string_view text) {
  const double width = kCharacterWidth * static_cast<double>(CountCodePoints(text));
  const double left = anchor == Anchor::kStart    ? x
                      : anchor == Anchor::kMiddle ? x - width / 2
                                                  : x - width;
  return {left, y - kLineHeight + 3, width, kLineHeight};
}

double Area(const SvgBox& box) { return box.width * box.height; }

std::vector<double> LogTicks(double low, double high, size_t most) {
  static constexpr std::array<std::array<int, 3>, 3> kSteps = {{{1, 2, 5}, {1, 3, 0}, {1, 0, 0}}};
  std::vector<double> ticks;
  for (const auto& steps : kSteps) {
    ticks.clear();
    for (int power = static_cast<int>(std::floor(std::log10(low))); std::pow(10, power) <= high;
         ++power) {
      for (const int step : steps) {
        const double tick = step * std::pow(10, power);
        if (step > 0 && tick >= low * 0.999 && tick <= high * 1.001) ticks.push_back(tick);
      }
    }
    if (ticks.size() <= most) break;
  }
  return ticks;
}

std::vector<double> LinearTicks(double low, double high, size_t most, double least_step) {
  double step = std::pow(10, std::floor(std::log10((high - low) / static_cast<double>(most))));
  for (const double factor : {2.0, 2.5, 2.0}) {
    if ((high - low) / step <= static_cast<double>(most)) break;
    step *= factor;
  }
  step = std::max(step, least_step);
  std::vector<double> ticks;
  for (double tick = std::ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) {
    ticks.push_back(tick);
  }
  return ticks;
}

}  // namespace

std::string Pixels(double value) {
  std::string text = Fixed(value, 1);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

double SvgAxis::At(double value) const {
  const double clamped = std::clamp(value, low, high);
  const double share =
      log ? std::log(clamped / low) / std::log(high / low) : (clamped - low) / (high - low);
  return from + share * (to - from);
}

std::vector<double> SvgAxis::Ticks(size_t most) const {
  return log ? LogTicks(low, high, most) : LinearTicks(low, high, most, whole ? 1 : 0);
}

SvgCanvas::SvgCanvas(double width, double height, std::string id, std::string_view title,
                     std::string_view description) {
  body_ = "<svg viewBox=\"0 0 " + Pixels(width) + " " + Pixels(height) +
          "\" role=\"img\" aria-labelledby=\"" + id + "-t " + id + "-d\"><title id=\"" + id +
          "-t\">" + EscapeHtml(title) + "</title><desc id=\"" + id + "-d\">" +
          EscapeHtml(description) + "</desc>\n";
}

void SvgCanvas::Line(double x1, double y1, double x2, double y2, std::string_view style) {
  body_ += "<line" + Class(style) + Attribute("x1", x1) + Attribute("y1", y1) +
           Attribute("x2", x2) + Attribute("y2", y2) + "/>\n";
}

void SvgCanvas::Polyline(const std::vector<std::pair<double, double>>& points,
                         std::string_view style) {
  body_ += "<polyline" + Class(style) + " points=\"";
  for (const auto& [x, y] : points) body_ += Pixels(x) + "," + Pixels(y) + " ";
  body_ += "\"/>\n";
}

void SvgCanvas::Rectangle(double x, double y, double width, double height, std::string_view style,
                          std::string_view tip) {
  body_ += "<rect" + Class(style) + Attribute("x", x) + Attribute("y", y) +
           Attribute("width", width) + Attribute("height", height) + ">" + Tip(tip) + "</rect>\n";
}

void SvgCanvas::Mark(Marker marker, double x, double y, std::string_view style,
                     std::string_view tip) {
  body_ +=
      "<path" + Class(style) + " d=\"" + MarkerPath(marker, x, y) + "\">" + Tip(tip) + "</path>\n";
}

void SvgCanvas::Text(double x, double y, Anchor anchor, std::string_view style,
                     std::string_view text) {
  body_ += "<text" + Class(style) + Attribute("x", x) + Attribute("y", y) + " text-anchor=\"" +
           std::string(AnchorName(anchor)) + "\">" + EscapeHtml(text) + "</text>\n";
}

void SvgCanvas::VerticalText(double x, double y, std::string_view style, std::string_view text) {
  body_ += "<text" + Class(style) + " text-anchor=\"middle\" transform=\"translate(" + Pixels(x) +
           " " + Pixels(y) + ") rotate(-90)\">" + EscapeHtml(text) + "</text>\n";
}

std::string MarkerSample(Marker marker, std::string_view style) {
  return "<svg class=\"sample\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><path" + Class(style) +
         " d=\"" + MarkerPath(marker, 8, 8) + "\"/></svg>";
}

std::string LineSample(std::string_view style) {
  return "<svg class=\"sample long\" viewBox=\"0 0 32 16\" aria-hidden=\"true\"><line" +
         Class(style) + " x1=\"1\" y1=\"8\" x2=\"31\" y2=\"8\"/></svg>";
}

double SvgBox::Overlap(const SvgBox& other) const {
  const double wide = std::min(x + width, other.x + other.width) - std::max(x, other.x);
  const double high = std::min(y + height, other.y + other.height) - std::max(y, other.y);
  return wide > 0 && high > 0 ? wide * high : 0;
}

LabelPlacer::Place LabelPlacer::Find(double x, double y, std::string_view text, bool always) {
  struct Candidate {
    double dx, dy;
    Anchor anchor;
  };
  static constexpr std::array<Candidate, 12> kCandidates = {{{9, 4, Anchor::kStart},
                                                             {0, -10, Anchor::kMiddle},
                                                             {0, 18, Anchor::kMiddle},
                                                             {-9, 4, Anchor::kEnd},
                                                             {8, -8, Anchor::kStart},
                                                             {8, 16, Anchor::kStart},
                                                             {-8, -8, Anchor::kEnd},
                                                             {-8, 16, Anchor::kEnd},
                                                             {0, -22, Anchor::kMiddle},
                                                             {0, 30, Anchor::kMiddle},
                                                             {10, -20, Anchor::kStart},
                                                             {-10, 28, Anchor::kEnd}}};
  Place best;
  SvgBox best_box;
  double best_cost = std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : kCandidates) {
    const SvgBox box = LabelBox(x + candidate.dx, y + candidate.dy, candidate.anchor, text);
    double cost = 10 * (Area(box) - box.Overlap(inside_));  // outside is worst
    for (const SvgBox& taken : taken_) cost += box.Overlap(taken);
    if (cost >= best_cost) continue;
    best_cost = cost;
    best = {x + candidate.dx, y + candidate.dy, candidate.anchor, cost < 1e-6};
    best_box = box;
    if (best.free) break;
  }
  if (best.free || always) Block(best_box);
  return best;
}

}  // namespace kvasir
