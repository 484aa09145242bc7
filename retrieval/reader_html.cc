#include <libxml/HTMLparser.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <memory>
#include <mutex>

#include "engine/tokenizer/utf8.h"
#include "retrieval/reader_formats.h"

namespace kvasir {
namespace {

// Open elements at once; more is an attack (libxml2 walks the open ones at every stray end tag).
constexpr int32_t kDeepestNesting = 4096;

template <size_t n>
bool Contains(const std::array<std::string_view, n>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Elements whose text is none of the document's.
constexpr std::array<std::string_view, 22> kDropped = {
    "script", "style",  "nav",    "template", "noscript", "svg",     "math",  "select",
    "button", "option", "iframe", "object",   "canvas",   "audio",   "video", "textarea",
    "label",  "map",    "dialog", "menu",     "footer",   "datalist"};
// Classes and ids by which pages mark navigation and other furniture.
constexpr std::array<std::string_view, 17> kFurniture = {
    "nosearch", "nav",        "navbar",     "navigation",  "menu",    "mainmenu",
    "submenu",  "searchmenu", "breadcrumb", "breadcrumbs", "sidebar", "toc",
    "footer",   "fancy_toc",  "headerlink", "skip-link",   "noprint"};
constexpr std::array<std::string_view, 4> kFurnitureRoles = {"navigation", "search", "banner",
                                                             "contentinfo"};
constexpr std::array<std::string_view, 21> kParagraphLike = {
    "p",       "div",     "section", "article", "blockquote", "figure", "figcaption",
    "address", "center",  "main",    "header",  "aside",      "hr",     "fieldset",
    "legend",  "caption", "details", "summary", "body",       "html",   "form"};

std::string_view View(const xmlChar* text) {
  return text ? std::string_view(reinterpret_cast<const char*>(text)) : std::string_view();
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool HasFurnitureToken(std::string_view value) {
  const std::string lower = Lower(value.substr(0, 256));
  std::string_view rest = lower;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find_first_of(" \t\n"), rest.size());
    if (Contains(kFurniture, rest.substr(0, end))) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

bool IsHiddenStyle(std::string_view style) {
  std::string packed;
  for (const char c : Lower(style.substr(0, 512))) {
    if (!std::isspace(static_cast<unsigned char>(c))) packed.push_back(c);
  }
  return packed.find("display:none") != std::string::npos;
}

// attributes: name, value, name, value, ..., null; or null.
bool IsFurniture(const xmlChar** attributes) {
  for (; attributes && attributes[0]; attributes += 2) {
    const std::string_view name = View(attributes[0]), value = View(attributes[1]);
    if (name == "hidden" || (name == "aria-hidden" && value == "true")) return true;
    if (name == "role" && Contains(kFurnitureRoles, value)) return true;
    if ((name == "class" || name == "id") && HasFurnitureToken(value)) return true;
    if (name == "style" && IsHiddenStyle(value)) return true;
  }
  return false;
}

int64_t StartOf(const xmlChar** attributes) {
  for (; attributes && attributes[0]; attributes += 2) {
    if (View(attributes[0]) == "start") return std::atoi(std::string(View(attributes[1])).c_str());
  }
  return 1;
}

int32_t HeadingLevel(std::string_view name) {
  return name.size() == 2 && name[0] == 'h' && name[1] >= '1' && name[1] <= '6' ? name[1] - '0' : 0;
}

// Receives libxml2's events. The parser closes what the page left open, so starts and ends pair.
class HtmlSink {
 public:
  HtmlSink(BlockBuilder* builder, std::string* title) : builder_(builder), title_(title) {}

  bool too_deep() const { return too_deep_; }
  void set_parser(xmlParserCtxtPtr parser) { parser_ = parser; }

  void Start(std::string_view name, const xmlChar** attributes) {
    if (++depth_ > kDeepestNesting) {
      too_deep_ = true;
      xmlStopParser(parser_);
      return;
    }
    if (dropped_from_ > 0) return;
    // <body> and <html> may carry any class; nothing marks a whole page as furniture.
    const bool root = name == "html" || name == "body";
    if (name == "button") builder_->Control();
    if (Contains(kDropped, name) || (!root && IsFurniture(attributes))) {
      dropped_from_ = depth_;
    } else {
      Open(name, attributes);
    }
  }

  void End(std::string_view name) {
    if (dropped_from_ == 0) Close(name);
    if (dropped_from_ == depth_) dropped_from_ = 0;
    --depth_;
  }

  void Characters(std::string_view text) {
    if (dropped_from_ > 0) return;
    if (in_title_) {
      if (title_) title_->append(text);
    } else {
      builder_->Text(text);
    }
  }

 private:
  void Open(std::string_view name, const xmlChar** attributes) {
    if (const int32_t level = HeadingLevel(name)) return builder_->OpenHeading(level);
    if (name == "title")
      in_title_ = true;
    else if (name == "ul" || name == "dl")
      builder_->OpenList(false);
    else if (name == "ol")
      builder_->OpenList(true, StartOf(attributes));
    else if (name == "li" || name == "dt")
      builder_->OpenItem();
    else if (name == "pre")
      builder_->OpenCode();
    else if (name == "table")
      builder_->OpenTable();
    else if (name == "tr")
      builder_->OpenRow();
    else if (name == "td" || name == "th")
      builder_->OpenCell();
    else if (name == "sup")
      builder_->Superscript();
    else if (name == "br")
      builder_->Text("\n");
    else
      Boundary(name);
  }

  void Close(std::string_view name) {
    if (HeadingLevel(name)) return builder_->CloseHeading();
    if (name == "title")
      in_title_ = false;
    else if (name == "ul" || name == "ol" || name == "dl")
      builder_->CloseList();
    else if (name == "pre")
      builder_->CloseCode();
    else if (name == "table")
      builder_->CloseTable();
    else if (name == "li" || name == "dt" || name == "td" || name == "th")
      builder_->Break();
    else
      Boundary(name);
  }

  void Boundary(std::string_view name) {
    if (name == "dd" || Contains(kParagraphLike, name)) builder_->Break();
  }

  BlockBuilder* builder_;
  std::string* title_;
  xmlParserCtxtPtr parser_ = nullptr;
  int32_t depth_ = 0;
  int32_t dropped_from_ = 0;  // depth of the outermost dropped element, 0 = none
  bool in_title_ = false;
  bool too_deep_ = false;
};

void OnStart(void* sink, const xmlChar* name, const xmlChar** attributes) {
  static_cast<HtmlSink*>(sink)->Start(View(name), attributes);
}
void OnEnd(void* sink, const xmlChar* name) { static_cast<HtmlSink*>(sink)->End(View(name)); }
void OnText(void* sink, const xmlChar* text, int length) {
  static_cast<HtmlSink*>(sink)->Characters(
      {reinterpret_cast<const char*>(text), static_cast<size_t>(length)});
}

struct FreeParser {
  void operator()(xmlParserCtxt* parser) const { htmlFreeParserCtxt(parser); }
};

// Events only: no tree, no messages on stderr, no network, the charset is known to be UTF-8.
std::unique_ptr<xmlParserCtxt, FreeParser> MakeParser(std::string_view text, HtmlSink* sink) {
  static std::once_flag once;
  std::call_once(once, xmlInitParser);
  std::unique_ptr<xmlParserCtxt, FreeParser> parser(
      htmlCreateMemoryParserCtxt(text.data(), static_cast<int>(text.size())));
  xmlCharEncodingHandlerPtr utf8 = xmlFindCharEncodingHandler("UTF-8");
  if (!parser || !utf8) return nullptr;
  htmlCtxtUseOptions(parser.get(), HTML_PARSE_RECOVER | HTML_PARSE_NOERROR | HTML_PARSE_NOWARNING |
                                       HTML_PARSE_NONET | HTML_PARSE_IGNORE_ENC);
  xmlSwitchToEncoding(parser.get(), utf8);
  if (parser->input->encoding == nullptr) {
    parser->input->encoding = xmlStrdup(reinterpret_cast<const xmlChar*>("UTF-8"));
  }
  xmlSAXHandler events{};
  events.startElement = OnStart;
  events.endElement = OnEnd;
  events.characters = OnText;
  events.cdataBlock = OnText;
  events.ignorableWhitespace = OnText;
  *parser->sax = events;
  parser->userData = sink;
  sink->set_parser(parser.get());
  return parser;
}

std::string Collapse(std::string_view text) {
  BlockBuilder builder;
  builder.Text(text);
  const std::vector<TextBlock> blocks = builder.Finish();
  return blocks.empty() ? std::string() : blocks[0].text;
}

// "This page last modified on ..." at the end of a page.
bool IsDateLine(const TextBlock& block) {
  if (block.kind != BlockKind::kParagraph || block.text.size() > 160) return false;
  const std::string lower = Lower(block.text);
  for (const char* opening : {"this page last ", "this page was last ", "last modified ",
                              "last updated ", "page last modified "}) {
    if (lower.starts_with(opening)) return true;
  }
  return false;
}

}  // namespace

Status AppendHtml(std::string_view name, std::string_view text, BlockBuilder* builder,
                  std::string* title) {
  if (text.empty()) return Status::Ok();
  if (text.size() > INT32_MAX) return InvalidArgument(std::string(name) + " is too long");
  HtmlSink sink(builder, title);
  const auto parser = MakeParser(text, &sink);
  if (!parser) return ResourceExhausted("no memory to parse " + std::string(name));
  htmlParseDocument(parser.get());
  if (sink.too_deep()) {
    return InvalidArgument(std::string(name) + " nests more than " +
                           std::to_string(kDeepestNesting) +
                           " HTML elements: convert it to text first");
  }
  return Status::Ok();
}

Result<ParsedDocument> ParseHtml(std::string_view name, std::string_view text) {
  ParsedDocument document;
  BlockBuilder builder;
  KVASIR_RETURN_IF_ERROR(AppendHtml(name, text, &builder, &document.title));
  document.title = Collapse(document.title);
  document.blocks = builder.Finish();
  if (!document.blocks.empty() && IsDateLine(document.blocks.back())) document.blocks.pop_back();
  return document;
}

std::string DecodeEntity(std::string_view entity) {
  std::string out;
  if (entity.size() < 3 || entity.front() != '&' || entity.back() != ';')
    return std::string(entity);
  const std::string inside(entity.substr(1, entity.size() - 2));
  uint32_t code = 0;
  if (inside[0] == '#' && inside.size() <= 9) {
    const bool hex = inside.size() > 1 && (inside[1] == 'x' || inside[1] == 'X');
    code =
        static_cast<uint32_t>(std::strtoul(inside.c_str() + (hex ? 2 : 1), nullptr, hex ? 16 : 10));
  } else if (const htmlEntityDesc* known =
                 htmlEntityLookup(reinterpret_cast<const xmlChar*>(inside.c_str()))) {
    code = known->value;
  }
  if (code < 32 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return std::string(entity);
  AppendUtf8(code, &out);
  return out;
}

std::string DeclaredCharset(std::string_view bytes) {
  const std::string head = Lower(bytes.substr(0, 4096));
  for (size_t meta = head.find("<meta"); meta != std::string::npos;
       meta = head.find("<meta", meta + 1)) {
    const std::string_view tag = std::string_view(head).substr(meta, head.find('>', meta) - meta);
    size_t at = tag.find("charset");
    if (at == std::string_view::npos) continue;
    at = tag.find_first_not_of(" \t\n=\"'", at + 7);
    if (at == std::string_view::npos) continue;
    return std::string(tag.substr(at, tag.find_first_of(" \t\n\"';/>", at) - at));
  }
  return {};
}

}  // namespace kvasir
