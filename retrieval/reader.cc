#include "retrieval/reader.h"

#include <fcntl.h>
#include <iconv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/tokenizer/utf8.h"
#include "retrieval/reader_formats.h"

namespace kvasir {
namespace {

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view BaseName(std::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == std::string_view::npos ? name : name.substr(slash + 1);
}

std::string Extension(std::string_view name) {
  const std::string_view base = BaseName(name);
  const size_t dot = base.rfind('.');
  return dot == std::string_view::npos || dot == 0 ? "" : Lower(base.substr(dot + 1));
}

std::string Stem(std::string_view name) {
  const std::string_view base = BaseName(name);
  const size_t dot = base.rfind('.');
  return std::string(dot == std::string_view::npos || dot == 0 ? base : base.substr(0, dot));
}

struct Magic {
  std::string_view bytes, what, advice;
};
constexpr std::string_view kConvert = "convert it to text, Markdown or HTML first";
constexpr std::array<Magic, 8> kMagics = {{
    {"%PDF-", "a PDF file", "convert it first, for example with pdftotext"},
    {"PK\x03\x04", "a zip archive or office document", kConvert},
    {"\x89PNG", "a PNG image", kConvert},
    {"GIF8", "a GIF image", kConvert},
    {"\xFF\xD8\xFF", "a JPEG image", kConvert},
    {"\x1F\x8B", "a gzip file", "unpack it first"},
    {"\x7F"
     "ELF",
     "a program", kConvert},
    {"SQLite format 3", "a SQLite database", kConvert},
}};

Status RefuseBinary(std::string_view name, std::string_view bytes) {
  for (const Magic& magic : kMagics) {
    if (!bytes.starts_with(magic.bytes)) continue;
    return InvalidArgument(std::string(name) + " is " + std::string(magic.what) +
                           ", not text: " + std::string(magic.advice));
  }
  return Status::Ok();
}

Status RefuseControls(std::string_view name, std::string_view text) {
  const auto is_control = [](char c) {
    return static_cast<unsigned char>(c) < 32 && !std::strchr("\t\n\r\f\x1B", c);
  };
  const std::string_view head = text.substr(0, 8192);
  const auto controls = std::count_if(head.begin(), head.end(), is_control);
  if (text.find('\0') == std::string_view::npos &&
      static_cast<size_t>(controls) * 10 <= head.size()) {
    return Status::Ok();
  }
  return InvalidArgument(std::string(name) +
                         " is a binary file, not text: " + std::string(kConvert));
}

// Byte order mark first, then what the HTML declares, then UTF-8. Strips the mark.
std::string TakeEncoding(DocumentFormat format, std::string_view* bytes) {
  const auto take = [&](std::string_view mark) {
    if (!bytes->starts_with(mark)) return false;
    bytes->remove_prefix(mark.size());
    return true;
  };
  if (take("\xEF\xBB\xBF")) return "utf-8";
  if (take("\xFF\xFE")) return "utf-16le";
  if (take("\xFE\xFF")) return "utf-16be";
  const std::string declared =
      format == DocumentFormat::kHtml ? DeclaredCharset(*bytes) : std::string();
  // A file whose <meta> can be read byte by byte is not UTF-16, whatever it says (HTML standard).
  if (declared.empty() || declared.starts_with("utf-16") || declared == "utf8") return "utf-8";
  if (declared == "iso-8859-1" || declared == "latin1" || declared == "us-ascii") return "cp1252";
  return declared;
}

Status BadEncoding(std::string_view name, const std::string& encoding, size_t line) {
  return InvalidArgument(std::string(name) + " is not valid " + encoding + " (line " +
                         std::to_string(line) + "): convert it to UTF-8, for example with iconv");
}

size_t LineOf(std::string_view text, size_t offset) {
  return 1 + static_cast<size_t>(
                 std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(offset), '\n'));
}

Result<std::string> Recode(std::string_view name, std::string_view bytes,
                           const std::string& encoding) {
  const iconv_t converter = iconv_open("UTF-8", encoding.c_str());
  if (converter == reinterpret_cast<iconv_t>(-1)) {
    return InvalidArgument(std::string(name) + " declares the unknown charset \"" +
                           encoding.substr(0, 40) + "\": convert it to UTF-8");
  }
  std::string out;
  std::array<char, 16384> buffer;
  char* in = const_cast<char*>(bytes.data());
  size_t left = bytes.size();
  bool good = true;
  while (left > 0 && good) {
    char* to = buffer.data();
    size_t room = buffer.size();
    const size_t result = iconv(converter, &in, &left, &to, &room);
    out.append(buffer.data(), buffer.size() - room);
    good = result != static_cast<size_t>(-1) || errno == E2BIG;
  }
  iconv_close(converter);
  if (!good) return BadEncoding(name, encoding, LineOf(out, out.size()));
  return out;
}

Result<std::string> ToUtf8(std::string_view name, std::string_view bytes, DocumentFormat format) {
  const std::string encoding = TakeEncoding(format, &bytes);
  std::string text;
  if (encoding == "utf-8") {
    text = bytes;
  } else {
    KVASIR_ASSIGN_OR_RETURN(text, Recode(name, bytes, encoding));
  }
  KVASIR_RETURN_IF_ERROR(RefuseControls(name, text));
  const size_t bad = FindInvalidUtf8(text);
  if (bad < text.size()) return BadEncoding(name, "UTF-8", LineOf(text, bad));
  return text;
}

// Line ends to '\n', form feeds too; other control characters but tab go.
std::string CleanControls(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\r' || c == '\f') {
      if (c == '\f' || i + 1 == text.size() || text[i + 1] != '\n') out.push_back('\n');
    } else if (static_cast<unsigned char>(c) >= 32 ? c != 127 : c == '\n' || c == '\t') {
      out.push_back(c);
    }
  }
  return out;
}

Result<ParsedDocument> Dispatch(std::string_view name, std::string_view text,
                                DocumentFormat format) {
  switch (format) {
    case DocumentFormat::kHtml:
      return ParseHtml(name, text);
    case DocumentFormat::kMarkdown:
      return ParseMarkdown(name, text);
    default:
      return ParseText(text);
  }
}

std::string FirstHeading(const ParsedDocument& document) {
  for (const TextBlock& block : document.blocks) {
    if (block.kind == BlockKind::kHeading) return block.text;
  }
  return {};
}

Status CannotRead(const std::string& path, const std::string& why) {
  return InvalidArgument("cannot read " + path + ": " + why);
}

}  // namespace

DocumentFormat DetectFormat(std::string_view name, std::string_view bytes) {
  const std::string extension = Extension(name);
  const auto is_one_of = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), extension) != names.end();
  };
  if (is_one_of({"html", "htm", "xhtml"})) return DocumentFormat::kHtml;
  if (is_one_of({"md", "markdown"})) return DocumentFormat::kMarkdown;
  if (is_one_of({"txt", "text", "log"})) return DocumentFormat::kText;
  const std::string head = Lower(bytes.substr(0, 1024));
  const size_t first = head.find_first_not_of(" \t\r\n\xEF\xBB\xBF");
  if (first == std::string::npos || head[first] != '<') return DocumentFormat::kText;
  for (const char* tag : {"<!doctype html", "<html", "<head", "<body"}) {
    if (head.find(tag) != std::string::npos) return DocumentFormat::kHtml;
  }
  return DocumentFormat::kText;
}

Result<ParsedDocument> ParseDocument(std::string_view name, std::string_view bytes,
                                     DocumentFormat format, const ReaderOptions& options) {
  if (bytes.size() > options.max_bytes) {
    return InvalidArgument(std::string(name) + " has " + std::to_string(bytes.size()) +
                           " bytes, more than the limit of " + std::to_string(options.max_bytes) +
                           ": split it");
  }
  KVASIR_RETURN_IF_ERROR(RefuseBinary(name, bytes));
  if (format == DocumentFormat::kAuto) format = DetectFormat(name, bytes);
  KVASIR_ASSIGN_OR_RETURN(const std::string text, ToUtf8(name, bytes, format));
  KVASIR_ASSIGN_OR_RETURN(ParsedDocument document, Dispatch(name, CleanControls(text), format));
  if (document.blocks.empty()) return InvalidArgument(std::string(name) + " holds no text");
  if (document.title.empty()) document.title = FirstHeading(document);
  if (document.title.empty()) document.title = Stem(name);
  return document;
}

Result<std::string> ReadFileBytes(const std::string& path, const ReaderOptions& options) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno == ENOENT) return NotFound("no such file: " + path);
  if (fd < 0) return CannotRead(path, std::strerror(errno));
  struct stat info {};
  std::string bytes;
  Status status;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = CannotRead(path, S_ISDIR(info.st_mode) ? "it is a folder" : "it is no regular file");
  } else if (static_cast<uint64_t>(info.st_size) > options.max_bytes) {
    status = CannotRead(path, std::to_string(info.st_size) + " bytes are more than the limit of " +
                                  std::to_string(options.max_bytes) + ", split it");
  }
  std::array<char, 65536> buffer;
  while (status.ok()) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) status = CannotRead(path, std::strerror(errno));
    if (got <= 0 || bytes.size() > options.max_bytes) break;
    bytes.append(buffer.data(), static_cast<size_t>(got));
  }
  close(fd);
  if (!status.ok()) return status;
  return bytes;
}

Result<ParsedDocument> ReadDocumentFile(const std::string& path, DocumentFormat format,
                                        const ReaderOptions& options) {
  KVASIR_ASSIGN_OR_RETURN(const std::string bytes, ReadFileBytes(path, options));
  return ParseDocument(path, bytes, format, options);
}

}  // namespace kvasir
