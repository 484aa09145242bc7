#include <md4c.h>

#include <algorithm>
#include <climits>

#include "retrieval/reader_formats.h"

namespace kvasir {
namespace {

// Receives md4c's events. Raw HTML blocks are collected and parsed as HTML.
struct MarkdownSink {
  std::string name;
  BlockBuilder builder;
  std::string html;  // the raw block so far
  bool in_html = false;
  int32_t images = 0;  // inside the description of this many images
  Status status;

  void FlushHtml() {
    if (!in_html) return;
    in_html = false;
    status = AppendHtml(name, html, &builder, nullptr);
    builder.Break();
    html.clear();
  }
};

int EnterBlock(MD_BLOCKTYPE type, void* detail, void* user) {
  auto* sink = static_cast<MarkdownSink*>(user);
  BlockBuilder& builder = sink->builder;
  switch (type) {
    case MD_BLOCK_H:
      builder.OpenHeading(static_cast<int32_t>(static_cast<MD_BLOCK_H_DETAIL*>(detail)->level));
      break;
    case MD_BLOCK_UL:
      builder.OpenList(false);
      break;
    case MD_BLOCK_OL:
      builder.OpenList(true, static_cast<MD_BLOCK_OL_DETAIL*>(detail)->start);
      break;
    case MD_BLOCK_LI:
      builder.OpenItem();
      break;
    case MD_BLOCK_CODE:
      builder.OpenCode();
      break;
    case MD_BLOCK_TABLE:
      builder.OpenTable();
      break;
    case MD_BLOCK_TR:
      builder.OpenRow();
      break;
    case MD_BLOCK_TH:
    case MD_BLOCK_TD:
      builder.OpenCell();
      break;
    case MD_BLOCK_HTML:
      sink->in_html = true;
      break;
    default:
      builder.Break();
  }
  return 0;
}

int LeaveBlock(MD_BLOCKTYPE type, void*, void* user) {
  auto* sink = static_cast<MarkdownSink*>(user);
  BlockBuilder& builder = sink->builder;
  switch (type) {
    case MD_BLOCK_H:
      builder.CloseHeading();
      break;
    case MD_BLOCK_UL:
    case MD_BLOCK_OL:
      builder.CloseList();
      break;
    case MD_BLOCK_CODE:
      builder.CloseCode();
      break;
    case MD_BLOCK_TABLE:
      builder.CloseTable();
      break;
    case MD_BLOCK_HTML:
      sink->FlushHtml();
      break;
    default:
      builder.Break();
  }
  return sink->status.ok() ? 0 : 1;
}

int EnterSpan(MD_SPANTYPE type, void*, void* user) {
  if (type == MD_SPAN_IMG) ++static_cast<MarkdownSink*>(user)->images;
  return 0;
}

int LeaveSpan(MD_SPANTYPE type, void*, void* user) {
  if (type == MD_SPAN_IMG) --static_cast<MarkdownSink*>(user)->images;
  return 0;
}

int OnText(MD_TEXTTYPE type, const MD_CHAR* text, MD_SIZE size, void* user) {
  auto* sink = static_cast<MarkdownSink*>(user);
  const std::string_view view(text, size);
  if (sink->in_html) {
    sink->html.append(view);
    return 0;
  }
  if (sink->images > 0) return 0;
  switch (type) {
    case MD_TEXT_HTML:
      break;  // an inline tag
    case MD_TEXT_BR:
    case MD_TEXT_SOFTBR:
      sink->builder.Text("\n");
      break;
    case MD_TEXT_ENTITY:
      sink->builder.Text(DecodeEntity(view));
      break;
    case MD_TEXT_NULLCHAR:
      break;
    default:
      sink->builder.Text(view);
  }
  return 0;
}

// Takes "---\n...\n---\n" off the front; returns its title field, or "".
std::string TakeFrontMatter(std::string_view* text) {
  if (!text->starts_with("---\n")) return {};
  const size_t end = text->find("\n---\n", 3);
  if (end == std::string_view::npos) return {};
  const std::string_view matter = text->substr(3, end - 2);  // "\n" of the first line to the last
  text->remove_prefix(end + 5);
  const size_t at = matter.find("\ntitle:");
  if (at == std::string_view::npos) return {};
  std::string_view title = matter.substr(at + 7);
  title = title.substr(0, title.find('\n'));
  const size_t first = title.find_first_not_of(" \t\"'"), last = title.find_last_not_of(" \t\"'");
  return first == std::string_view::npos ? std::string()
                                         : std::string(title.substr(first, last - first + 1));
}

}  // namespace

Result<ParsedDocument> ParseMarkdown(std::string_view name, std::string_view text) {
  ParsedDocument document;
  document.title = TakeFrontMatter(&text);
  if (text.size() > INT_MAX) return InvalidArgument(std::string(name) + " is too long");
  MarkdownSink sink;
  sink.name = name;
  MD_PARSER parser{};
  parser.flags = MD_FLAG_TABLES | MD_FLAG_STRIKETHROUGH | MD_FLAG_TASKLISTS;
  parser.enter_block = EnterBlock;
  parser.leave_block = LeaveBlock;
  parser.enter_span = EnterSpan;
  parser.leave_span = LeaveSpan;
  parser.text = OnText;
  const int failed = md_parse(text.data(), static_cast<MD_SIZE>(text.size()), &parser, &sink);
  KVASIR_RETURN_IF_ERROR(sink.status);
  if (failed != 0) return ResourceExhausted("no memory to parse " + std::string(name));
  document.blocks = sink.builder.Finish();
  return document;
}

}  // namespace kvasir
