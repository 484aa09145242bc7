// SVG: elements as text, axes, and a place for labels. Colours come from the page's style by class.
//
// Coordinates are in pixels of the view box, y downwards. SvgCanvas and LabelPlacer are used by one
// thread; the rest is pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir {

std::string Pixels(double value);  // one digit behind the point

// From values to pixels. A logarithmic axis takes positive values; At clamps to the ends.
struct SvgAxis {
  double low = 0, high = 1;  // values; low < high
  double from = 0, to = 1;   // pixels at low and high
  bool log = false;
  bool whole = false;  // ticks at whole numbers alone

  double At(double value) const;
  // Round values within: 1, 2, 5 x 10^k as far as about `most` allow.
  std::vector<double> Ticks(size_t most) const;
};

enum class Marker { kCircle, kSquare, kTriangle, kDiamond, kTriangleDown, kCross };
inline constexpr int kMarkers = 6;

enum class Anchor { kStart, kMiddle, kEnd };

class SvgCanvas {
 public:
  // `id` prefixes the ids of title and description, which screen readers are told instead of the
  // drawing; unique in the page.
  SvgCanvas(double width, double height, std::string id, std::string_view title,
            std::string_view description);

  // `style` is a class of the page's style sheet.
  void Line(double x1, double y1, double x2, double y2, std::string_view style);
  void Polyline(const std::vector<std::pair<double, double>>& points, std::string_view style);
  void Rectangle(double x, double y, double width, double height, std::string_view style,
                 std::string_view tip = "");
  void Mark(Marker marker, double x, double y, std::string_view style, std::string_view tip);
  void Text(double x, double y, Anchor anchor, std::string_view style, std::string_view text);
  // Upwards along the left edge, centred on (x, y).
  void VerticalText(double x, double y, std::string_view style, std::string_view text);

  std::string Finish() { return body_ + "</svg>\n"; }

 private:
  std::string body_;
};

// A marker alone, for legends.
std::string MarkerSample(Marker marker, std::string_view style);
// A short line, for legends.
std::string LineSample(std::string_view style);

struct SvgBox {
  double x = 0, y = 0, width = 0, height = 0;
  double Overlap(const SvgBox& other) const;  // area
};

// Finds room for labels beside points, one after the other.
class LabelPlacer {
 public:
  explicit LabelPlacer(SvgBox inside) : inside_(inside) {}
  void Block(SvgBox box) { taken_.push_back(box); }

  struct Place {
    double x = 0, y = 0;  // of the text's baseline
    Anchor anchor = Anchor::kStart;
    bool free = false;  // overlaps nothing
  };
  // The first free place around the point, else the least covered one; keeps it if it is free or
  // `always`.
  Place Find(double x, double y, std::string_view text, bool always);

 private:
  SvgBox inside_;
  std::vector<SvgBox> taken_;
};

}  // namespace kvasir
