#include "engine/model/safetensors_header.h"

#include <functional>
#include <limits>
#include <set>

namespace kvasir {
namespace {

constexpr size_t kMaxAxes = 8;

// Reads JSON of known form; never recurses, so depth needs no limit.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  Status Error(std::string_view what) const {
    return InvalidArgument("header byte " + std::to_string(at_) + ": " + std::string(what));
  }
  void SkipSpace() {
    while (at_ < text_.size() && IsSpace(text_[at_])) ++at_;
  }
  bool AtEnd() const { return at_ == text_.size(); }

  // Skips white space, then takes `symbol` if it is next.
  bool Take(char symbol) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != symbol) return false;
    ++at_;
    return true;
  }
  Status Expect(char symbol) {
    return Take(symbol) ? Status::Ok() : Error(std::string("expected '") + symbol + "'");
  }

  Result<std::string> String() {
    KVASIR_RETURN_IF_ERROR(Expect('"'));
    std::string value;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) return Error("control character in a string");
      if (c != '\\') {
        value.push_back(c);
      } else {
        KVASIR_RETURN_IF_ERROR(Escape(&value));
      }
    }
    if (at_ >= text_.size()) return Error("unfinished string");
    ++at_;
    return value;
  }

  // A non-negative integer without sign, fraction or exponent.
  Result<uint64_t> Unsigned() {
    SkipSpace();
    const size_t begin = at_;
    uint64_t value = 0;
    for (; at_ < text_.size() && IsDigit(text_[at_]); ++at_) {
      const auto digit = static_cast<uint64_t>(text_[at_] - '0');
      if (__builtin_mul_overflow(value, uint64_t{10}, &value) ||
          __builtin_add_overflow(value, digit, &value)) {
        return Error("number too large");
      }
    }
    if (at_ == begin) return Error("expected a whole number");
    if (text_[begin] == '0' && at_ - begin > 1) return Error("number begins with 0");
    return value;
  }

  // {"key": <member>, ...}; `member` reads the value.
  Status Object(const std::function<Status(std::string key)>& member) {
    KVASIR_RETURN_IF_ERROR(Expect('{'));
    if (Take('}')) return Status::Ok();
    do {
      KVASIR_ASSIGN_OR_RETURN(std::string key, String());
      KVASIR_RETURN_IF_ERROR(Expect(':'));
      KVASIR_RETURN_IF_ERROR(member(std::move(key)));
    } while (Take(','));
    return Expect('}');
  }

  // [1, 2, ...] of `limit` numbers at most.
  Result<std::vector<uint64_t>> Numbers(size_t limit) {
    std::vector<uint64_t> values;
    KVASIR_RETURN_IF_ERROR(Expect('['));
    if (Take(']')) return values;
    do {
      if (values.size() == limit) return Error("too many numbers in an array");
      KVASIR_ASSIGN_OR_RETURN(const uint64_t value, Unsigned());
      values.push_back(value);
    } while (Take(','));
    KVASIR_RETURN_IF_ERROR(Expect(']'));
    return values;
  }

 private:
  static bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  static bool IsDigit(char c) { return c >= '0' && c <= '9'; }

  Status Escape(std::string* value) {
    if (at_ >= text_.size()) return Error("unfinished string");
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\"\\/bfnrt";
    constexpr std::string_view kTo = "\"\\/\b\f\n\r\t";
    if (const size_t which = kFrom.find(c); which != std::string_view::npos) {
      value->push_back(kTo[which]);
      return Status::Ok();
    }
    return c == 'u' ? UnicodeEscape(value) : Error("unknown escape in a string");
  }

  // \uXXXX in the basic plane; surrogate pairs do not occur in tensor names.
  Status UnicodeEscape(std::string* value) {
    uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const int digit = at_ < text_.size() ? HexDigit(text_[at_]) : -1;
      if (digit < 0) return Error("bad \\u escape");
      code = code * 16 + static_cast<uint32_t>(digit);
    }
    if (code >= 0xD800 && code < 0xE000) return Error("surrogates in a \\u escape");
    AppendUtf8(code, value);
    return Status::Ok();
  }

  static int HexDigit(char c) {
    if (IsDigit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  }

  static void AppendUtf8(uint32_t code, std::string* out) {
    if (code < 0x80) {
      out->push_back(static_cast<char>(code));
    } else if (code < 0x800) {
      out->push_back(static_cast<char>(0xC0 | code >> 6));
      out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
    } else {
      out->push_back(static_cast<char>(0xE0 | code >> 12));
      out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
      out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

Status ParseShape(Scanner& scan, std::vector<int64_t>* shape) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<uint64_t> axes, scan.Numbers(kMaxAxes));
  for (const uint64_t axis : axes) {
    if (axis > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return scan.Error("shape too large");
    }
    shape->push_back(static_cast<int64_t>(axis));
  }
  return Status::Ok();
}

Status ParseOffsets(Scanner& scan, SafetensorsEntry* entry) {
  KVASIR_ASSIGN_OR_RETURN(const std::vector<uint64_t> offsets, scan.Numbers(2));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return scan.Error("data_offsets must be [begin, end] with begin <= end");
  }
  entry->begin = offsets[0];
  entry->end = offsets[1];
  return Status::Ok();
}

Status ParseEntry(Scanner& scan, SafetensorsEntry* entry) {
  std::set<std::string> seen;
  KVASIR_RETURN_IF_ERROR(scan.Object([&](std::string key) -> Status {
    if (!seen.insert(key).second) return scan.Error("field \"" + key + "\" twice");
    if (key == "shape") return ParseShape(scan, &entry->shape);
    if (key == "data_offsets") return ParseOffsets(scan, entry);
    if (key != "dtype") return scan.Error("unknown field \"" + key + "\"");
    KVASIR_ASSIGN_OR_RETURN(entry->type, scan.String());
    return Status::Ok();
  }));
  return seen.size() == 3
             ? Status::Ok()
             : scan.Error("tensor \"" + entry->name + "\" needs dtype, shape and data_offsets");
}

Status ParseMetadata(Scanner& scan, std::map<std::string, std::string>* metadata) {
  return scan.Object([&](std::string key) -> Status {
    KVASIR_ASSIGN_OR_RETURN(std::string value, scan.String());
    return metadata->emplace(std::move(key), std::move(value)).second
               ? Status::Ok()
               : scan.Error("metadata key twice");
  });
}

}  // namespace

Result<SafetensorsHeader> ParseSafetensorsHeader(std::string_view json) {
  SafetensorsHeader header;
  std::set<std::string> names;
  Scanner scan(json);
  KVASIR_RETURN_IF_ERROR(scan.Object([&](std::string key) -> Status {
    if (!names.insert(key).second) return scan.Error("name \"" + key + "\" twice");
    if (key == "__metadata__") return ParseMetadata(scan, &header.metadata);
    header.entries.push_back({std::move(key), {}, {}, 0, 0});
    return ParseEntry(scan, &header.entries.back());
  }));
  scan.SkipSpace();
  if (!scan.AtEnd()) return scan.Error("text after the header's object");
  return header;
}

}  // namespace kvasir
