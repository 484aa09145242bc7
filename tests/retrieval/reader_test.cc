#include "retrieval/reader.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <ostream>
#include <random>

#include "engine/tokenizer/utf8.h"
#include "test_support.h"

namespace kvasir {

void PrintTo(const TextBlock& block, std::ostream* out) {
  *out << static_cast<int>(block.kind) << "/" << block.level << " \"" << block.text << "\"";
}

namespace {

TextBlock H(int32_t level, std::string text) {
  return {BlockKind::kHeading, level, std::move(text)};
}
TextBlock P(std::string text) { return {BlockKind::kParagraph, 0, std::move(text)}; }
TextBlock L(std::string text) { return {BlockKind::kList, 0, std::move(text)}; }
TextBlock C(std::string text) { return {BlockKind::kCode, 0, std::move(text)}; }
TextBlock T(std::string text) { return {BlockKind::kTable, 0, std::move(text)}; }
using Blocks = std::vector<TextBlock>;

ParsedDocument Parse(std::string_view name, std::string_view bytes) {
  auto parsed = ParseDocument(name, bytes);
  EXPECT_TRUE(parsed.ok()) << parsed.status().ToString();
  return parsed.ok() ? *parsed : ParsedDocument{};
}

Status Refusal(std::string_view name, std::string_view bytes,
               DocumentFormat format = DocumentFormat::kAuto) {
  const auto parsed = ParseDocument(name, bytes, format);
  EXPECT_FALSE(parsed.ok());
  EXPECT_NE(parsed.status().message().find(name), std::string::npos) << parsed.status().message();
  return parsed.status();
}

// ---- HTML -------------------------------------------------------------------------------------

TEST(HtmlReader, KeepsStructureAndDropsFurniture) {
  const ParsedDocument page = Parse("page.html", R"(<!DOCTYPE html>
<html><head><title>The  Title</title><style>p { color: red }</style></head>
<body class="menu">
<nav><a href=x>Home</a></nav><div class="menu mainmenu">Menu<ul><li>One</ul></div>
<script>if (1 < 2) document.write("<p>no</p>");</script>
<h1 id=a><span>1. </span>Over&shy;view</h1>
<p>First   paragraph &amp; more,
   2<sup>31</sup>&nbsp;bytes &#8212; &eacute;<br>end.
<p>Second one.</p>
<ul><li>alpha<li>beta<ol start=3><li>inner</ol></ul>
<pre>
int  main() {
  return 0;
}

</pre>
<table><tr><th>Name<th>Size<tr><td>a<td>1</table>
<p><b>expr:</b><button>hide</button></p>
<h2>Second</h2>Bare text.
<p>This page last modified on 2022-01-20</p>
<footer>Legal</footer></body></html>)");
  EXPECT_EQ(page.title, "The Title");
  EXPECT_EQ(page.blocks,
            (Blocks{H(1, "1. Overview"), P("First paragraph & more, 2^31 bytes \u2014 \u00E9 end."),
                    P("Second one."), L("- alpha\n- beta\n  3. inner"),
                    C("int  main() {\n  return 0;\n}"), T("Name | Size\na | 1"), H(2, "Second"),
                    P("Bare text.")}));
}

TEST(HtmlReader, ListsWithParagraphsCodeAndTerms) {
  const ParsedDocument page = Parse("x.htm",
                                    "<ol><li><p>one</p><p>more</p><pre>x = 1\ny = 2</pre><li>two"
                                    "</ol><dl><dt>term<dd>meaning</dl>");
  EXPECT_EQ(page.blocks,
            (Blocks{L("1. one\n  more\n  x = 1\n  y = 2\n2. two"), L("- term\n  meaning")}))
      << "continuation lines are indented";
}

TEST(HtmlReader, LayoutTablesAreRunningText) {
  const ParsedDocument page =
      Parse("x.html",
            "<table><tr><td><h2>Head</h2><p>Text</p><td><pre>code</pre></table>"
            "<table><tr><td>one column<tr><td>only</table>");
  EXPECT_EQ(page.blocks, (Blocks{H(2, "Head"), P("Text"), C("code"), P("one column"), P("only")}));
}

TEST(HtmlReader, RealSqlitePageHasNoFurniture) {
  const std::string path = "/usr/share/doc/sqlite3/wal.html";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "skipped: sqlite3-doc missing";
  const auto page = ReadDocumentFile(path);
  ASSERT_TRUE(page.ok()) << page.status().ToString();
  EXPECT_EQ(page->title, "Write-Ahead Logging");
  ASSERT_GT(page->blocks.size(), 60u);
  EXPECT_EQ(page->blocks[0], H(1, "1. Overview"));
  for (const TextBlock& block : page->blocks) {
    for (const char* furniture : {"Small. Fast.", "Purchase", "Search Documentation", "function(",
                                  "Table Of Contents", "last modified"}) {
      EXPECT_EQ(block.text.find(furniture), std::string::npos) << block.text;
    }
  }
}

TEST(HtmlReader, Encodings) {
  EXPECT_EQ(Parse("a.html", "<p>caf\xC3\xA9").blocks, Blocks{P("caf\u00E9")});
  EXPECT_EQ(Parse("a.html", "<meta charset=iso-8859-1><p>caf\xE9 \x93q\x94").blocks,
            Blocks{P("caf\u00E9 \u201Cq\u201D")});
  EXPECT_EQ(Parse("a.html",
                  "<meta http-equiv=Content-Type content='text/html; "
                  "charset=koi8-r'><p>\xC4\xC1")
                .blocks,
            Blocks{P("\u0434\u0430")});
  using namespace std::string_view_literals;
  EXPECT_EQ(Parse("a.html", "\xFF\xFE<\0p\0>\0\xE9\0"sv).blocks, Blocks{P("\u00E9")});
  EXPECT_EQ(Refusal("a.html", "<p>caf\xE9 is not UTF-8").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Refusal("a.html", "<meta charset=no-such><p>x").code(), StatusCode::kInvalidArgument);
}

// Deep or broken nesting must neither crash nor take quadratic time.
TEST(HtmlReader, HostileNesting) {
  std::string deep, lists, tables, unclosed;
  for (int i = 0; i < 100000; ++i) deep += "<div>";
  EXPECT_EQ(Refusal("deep.html", deep + "x").code(), StatusCode::kInvalidArgument);
  for (int i = 0; i < 2000; ++i) lists += "<ul><li>x";
  for (int i = 0; i < 900; ++i) tables += "<table><tr><td>x";
  for (int i = 0; i < 50000; ++i) unclosed += "</b></i><p>y</td>";
  EXPECT_EQ(Parse("lists.html", lists).blocks.size(), 1u);
  EXPECT_FALSE(Parse("tables.html", tables).blocks.empty());
  EXPECT_EQ(Parse("unclosed.html", unclosed).blocks.size(), 50000u);
}

// ---- Markdown ---------------------------------------------------------------------------------

TEST(MarkdownReader, KeepsStructure) {
  const ParsedDocument page = Parse("doc.md", R"(---
title: "From the front"
tags: [a]
---
# Head *one*

Some `code` and a [link](http://x) &copy; &#65;,
wrapped. ![image](x.png)

- a
- b
    1. c

```cpp
int  x;
```

| A | B |
|---|---|
| 1 | 2 |

<div class="note">Raw <b>HTML</b> here</div>

## Tail
)");
  EXPECT_EQ(page.title, "From the front");
  EXPECT_EQ(page.blocks, (Blocks{H(1, "Head one"), P("Some code and a link \u00A9 A, wrapped."),
                                 L("- a\n- b\n  1. c"), C("int  x;"), T("A | B\n1 | 2"),
                                 P("Raw HTML here"), H(2, "Tail")}));
}

TEST(MarkdownReader, TitleFallsBackToHeadingThenName) {
  EXPECT_EQ(Parse("a/b.md", "text\n\n# First\n").title, "First");
  EXPECT_EQ(Parse("a/notes.old.md", "text").title, "notes.old");
}

// ---- text -------------------------------------------------------------------------------------

TEST(TextReader, ParagraphsListsAndCode) {
  const ParsedDocument page =
      Parse("notes.txt",
            "\xEF\xBB\xBFOne line\r\nand the next.\r\n\r\n- a\n  more\n- b\n\n"
            "    x = 1\n    y = 2\n\n \t\nlast\fpage");
  EXPECT_EQ(page.title, "notes");
  EXPECT_EQ(page.blocks, (Blocks{P("One line and the next."), L("- a more\n- b"),
                                 C("    x = 1\n    y = 2"), P("last page")}));
}

TEST(TextReader, FormatBySniffing) {
  EXPECT_EQ(DetectFormat("x.HTML", ""), DocumentFormat::kHtml);
  EXPECT_EQ(DetectFormat("x.markdown", "<html>"), DocumentFormat::kMarkdown);
  EXPECT_EQ(DetectFormat("x", "  <!DOCTYPE html>"), DocumentFormat::kHtml);
  EXPECT_EQ(DetectFormat("x", "<notes> are text"), DocumentFormat::kText);
  EXPECT_EQ(DetectFormat(".html", "plain"), DocumentFormat::kText);
}

// ---- refusals ---------------------------------------------------------------------------------

TEST(Reader, RefusesWhatIsNoText) {
  using namespace std::string_view_literals;
  EXPECT_NE(Refusal("r.pdf", "%PDF-1.7 ...").message().find("pdftotext"), std::string::npos);
  EXPECT_NE(Refusal("r.docx", "PK\x03\x04zzz").message().find("office"), std::string::npos);
  EXPECT_EQ(Refusal("r.txt", "a\0b"sv).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Refusal("r.txt", "\x01\x02\x03\x04").code(), StatusCode::kInvalidArgument);
  EXPECT_NE(Refusal("r.txt", "ok\nbad \xC0\x80").message().find("line 2"), std::string::npos);
  EXPECT_NE(Refusal("r.txt", " \n\t\n").message().find("no text"), std::string::npos);
  EXPECT_NE(Refusal("r.html", "<script>x</script>").message().find("no text"), std::string::npos);
  ReaderOptions small;
  small.max_bytes = 4;
  EXPECT_EQ(ParseDocument("big.txt", "12345", DocumentFormat::kAuto, small).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(Reader, Files) {
  const auto folder = std::filesystem::temp_directory_path() / "kvasir_reader_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "a.txt") << "hello";
  EXPECT_EQ(ReadDocumentFile((folder / "a.txt").string())->blocks, Blocks{P("hello")});
  EXPECT_EQ(ReadDocumentFile((folder / "b.txt").string()).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(ReadDocumentFile(folder.string()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadDocumentFile("/dev/zero").status().code(), StatusCode::kInvalidArgument);
  ReaderOptions small;
  small.max_bytes = 4;
  EXPECT_EQ(ReadFileBytes((folder / "a.txt").string(), small).status().code(),
            StatusCode::kInvalidArgument);
  std::filesystem::remove_all(folder);
}

// Any bytes give a document of valid UTF-8 or an error, whatever the format.
TEST(Reader, RandomBytesNeverBreakIt) {
  std::mt19937 random(11);
  const std::vector<std::string> parts = {
      "<p>",       "</p>",  "<table>",  "<td>",         "<tr>",    "</table>",
      "<li>",      "<ul>",  "</ul>",    "<pre>",        "</pre>",  "<h2>",
      "</h2>",     "&amp;", "&#x;",     "&#99999999;",  "<!--",    "-->",
      "<![CDATA[", "text ", "\n",       "\n\n",         "# ",      "- ",
      "    ",      "|",     "---",      "```\n",        "[a](b)",  "\u00E9",
      "\x01",      "<sup>", "<button>", "\xE2\x80\x8B", "<title>", "\""};
  for (int round = 0; round < 600; ++round) {
    std::string bytes;
    for (int i = 0; i < 60; ++i) bytes += parts[random() % parts.size()];
    if (round % 5 == 0) bytes[random() % bytes.size()] = static_cast<char>(random());
    for (const auto format :
         {DocumentFormat::kText, DocumentFormat::kMarkdown, DocumentFormat::kHtml}) {
      const auto parsed = ParseDocument("fuzz", bytes, format);
      if (!parsed.ok()) continue;
      for (const TextBlock& block : parsed->blocks) {
        EXPECT_FALSE(block.text.empty());
        EXPECT_EQ(FindInvalidUtf8(block.text), block.text.size());
        EXPECT_EQ(block.text.find_first_of(std::string("\0\r\x01", 3)), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir
