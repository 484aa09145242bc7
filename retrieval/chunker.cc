#include "retrieval/chunker.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "retrieval/sections.h"

namespace kvasir {
namespace {

constexpr int32_t kLeastTarget = 48, kMostTarget = 8192;
// Texts of more bytes a token than this are parted before they are counted at all, so that a
// tokenizer never sees a word of megabytes.
constexpr size_t kMostBytesPerToken = 16;

// Cost of ending a chunk before a piece, as a share of the budget: a worse place is taken if it
// comes that much closer to even chunks.
double Penalty(const Piece& next) {
  constexpr double kOf[] = {0.0, 0.05, 0.15, 0.15, 0.6, 0.8};
  return kOf[static_cast<size_t>(next.before)] + (next.glued ? 0.4 : 0.0);
}

size_t CommonPrefix(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  const auto ends = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(ends.first - a.begin());
}

std::string Join(const std::vector<std::string>& parts, size_t begin) {
  std::string out;
  for (size_t i = begin; i < parts.size(); ++i) {
    if (!out.empty()) out.append(" > ");
    out.append(parts[i]);
  }
  return out;
}

class ChunkMaker {
 public:
  ChunkMaker(const ParsedDocument& document, const ChunkerOptions& options,
             const ChunkTokenCounter& count)
      : document_(document), options_(options), count_(count) {}

  Result<std::vector<ChunkText>> Run() {
    KVASIR_ASSIGN_OR_RETURN(empty_tokens_, count_("", ""));
    std::vector<Section> sections = MakeSections(document_);
    for (Section& section : sections) KVASIR_RETURN_IF_ERROR(CountSection(&section));
    for (Section& group : Group(std::move(sections))) KVASIR_RETURN_IF_ERROR(Pack(&group));
    return std::move(chunks_);
  }

 private:
  // ---- counting -------------------------------------------------------------------------------

  // Longest piece: half a chunk, so that with the longest title (a third) it still fits.
  int32_t PieceLimit() const { return options_.target_tokens / 2; }

  Status CountSection(Section* section) {
    std::vector<Piece> pieces;
    for (Piece& piece : section->pieces)
      KVASIR_RETURN_IF_ERROR(AddSmall(std::move(piece), &pieces));
    section->pieces = std::move(pieces);
    for (const Piece& piece : section->pieces) section->tokens += CostOf(piece);
    return Status::Ok();
  }

  // Counts a piece and appends it, in as many parts as PieceLimit asks for, in order.
  Status AddSmall(Piece piece, std::vector<Piece>* out) {
    std::vector<Piece> stack{std::move(piece)};  // last = next
    while (!stack.empty()) {
      Piece part = std::move(stack.back());
      stack.pop_back();
      const bool huge = part.text.size() > kMostBytesPerToken * static_cast<size_t>(PieceLimit());
      if (!huge) {
        KVASIR_ASSIGN_OR_RETURN(const int32_t tokens, count_("", part.text));
        part.tokens = std::max(1, tokens - empty_tokens_);
      }
      Piece first, second;
      if (huge || part.tokens > PieceLimit()) SplitPiece(part, &first, &second);
      if (second.text.empty()) {
        out->push_back(std::move(part));
      } else {
        stack.push_back(std::move(second));
        stack.push_back(std::move(first));
      }
    }
    return Status::Ok();
  }

  // With the line end before it, if any.
  static int32_t CostOf(const Piece& piece) {
    return piece.tokens + (piece.before <= Boundary::kLine ? 1 : 0);
  }

  // ---- grouping -------------------------------------------------------------------------------

  // Joins small neighbouring sections. A group's path is what its sections have in common; the rest
  // of each path stands as a line of text above its section.
  std::vector<Section> Group(std::vector<Section> sections) {
    std::vector<Section> groups;
    std::vector<Section> members;
    size_t common = 0;
    const auto close = [&] {
      if (!members.empty()) groups.push_back(Merge(std::move(members), common));
      members.clear();
    };
    for (Section& section : sections) {
      if (!members.empty() && !Joins(members, common, section)) close();
      common = members.empty() ? section.path.size()
                               : std::min(common, CommonPrefix(members[0].path, section.path));
      members.push_back(std::move(section));
    }
    close();
    return groups;
  }

  bool Joins(const std::vector<Section>& members, size_t common, const Section& next) const {
    int32_t tokens = 0;
    for (const Section& member : members) tokens += member.tokens;
    if (tokens >= options_.merge_below_tokens && next.tokens >= options_.merge_below_tokens) {
      return false;
    }
    const size_t shared = std::min(common, CommonPrefix(members[0].path, next.path));
    // Room for the title and the headings, roughly; Pack counts exactly.
    const int32_t room = options_.target_tokens * 3 / 4 - 8 * static_cast<int32_t>(members.size());
    // Siblings, or a section and what is below it.
    return tokens + next.tokens <= room && common <= next.path.size() && shared + 1 >= common;
  }

  Section Merge(std::vector<Section> members, size_t common) {
    Section group;
    group.path.assign(members[0].path.begin(),
                      members[0].path.begin() + static_cast<ptrdiff_t>(common));
    for (Section& member : members) {
      std::string heading = Join(member.path, common);
      if (!heading.empty() && !member.pieces.empty()) {
        member.pieces[0].glued = true;
        Piece line{std::move(heading), Boundary::kBlock, false, false, 0};
        line.tokens = static_cast<int32_t>(line.text.size() / 4) + 1;  // Pack counts exactly
        group.pieces.push_back(std::move(line));
      }
      for (Piece& piece : member.pieces) group.pieces.push_back(std::move(piece));
    }
    return group;
  }

  // ---- packing --------------------------------------------------------------------------------

  std::string TitleOf(const Section& group) const {
    const std::string path = Join(group.path, 0);
    if (path.empty() || document_.title.empty()) return document_.title + path;
    return document_.title + " > " + path;
  }

  // Cut short so that it takes at most a third of a chunk.
  Result<std::string> FittingTitle(const Section& group) const {
    std::string title = TitleOf(group);
    const size_t most = kMostBytesPerToken * static_cast<size_t>(options_.target_tokens);
    while (!title.empty()) {
      if (title.size() <= most) {
        KVASIR_ASSIGN_OR_RETURN(const int32_t tokens, count_(title, ""));
        if (tokens - empty_tokens_ <= options_.target_tokens / 3) break;
      }
      size_t keep = std::min(title.size(), most * 2) / 2;
      while (keep > 0 && (static_cast<unsigned char>(title[keep]) & 0xC0) == 0x80) --keep;
      title.resize(keep);
    }
    return title;
  }

  Status Pack(Section* group) {
    KVASIR_ASSIGN_OR_RETURN(const std::string title, FittingTitle(*group));
    KVASIR_ASSIGN_OR_RETURN(const int32_t title_tokens, count_(title, ""));
    const int32_t budget = options_.target_tokens - title_tokens;
    std::vector<Piece>& pieces = group->pieces;
    int64_t remaining = 0;
    for (const Piece& piece : pieces) remaining += CostOf(piece);
    for (size_t begin = 0; begin < pieces.size();) {
      size_t end = ChooseEnd(pieces, begin, remaining, budget);
      KVASIR_ASSIGN_OR_RETURN(end, Emit(title, &pieces, begin, end));
      for (; begin < end; ++begin) remaining -= CostOf(pieces[begin]);
    }
    return Status::Ok();
  }

  // The end of a chunk that begins at `begin`: near an even share of what remains, at a good place.
  static size_t ChooseEnd(const std::vector<Piece>& pieces, size_t begin, int64_t remaining,
                          int32_t budget) {
    if (remaining <= budget) return pieces.size();
    const auto room = static_cast<double>(std::max(budget, 1));
    const double share =
        static_cast<double>(remaining) / std::ceil(static_cast<double>(remaining) / room);
    size_t best = begin + 1;
    double best_score = std::numeric_limits<double>::infinity();
    int64_t sum = 0;
    for (size_t i = begin; i < pieces.size(); ++i) {
      sum += CostOf(pieces[i]);
      if (sum > budget) break;
      const double penalty = i + 1 < pieces.size() ? Penalty(pieces[i + 1]) : 0.0;
      const double score = std::abs(static_cast<double>(sum) - share) / room + penalty;
      if (score > best_score) continue;
      best = i + 1;
      best_score = score;
    }
    return best;
  }

  static std::string TextOf(const std::vector<Piece>& pieces, size_t begin, size_t end) {
    std::string text = pieces[begin].text;
    for (size_t i = begin + 1; i < end; ++i)
      text.append(JoinerOf(pieces[i])).append(pieces[i].text);
    return text;
  }

  // Writes the chunk of pieces [begin, end), or fewer of them if the exact count is over the limit.
  // Returns the end.
  Result<size_t> Emit(const std::string& title, std::vector<Piece>* pieces, size_t begin,
                      size_t end) {
    for (;;) {
      std::string text = TextOf(*pieces, begin, end);
      KVASIR_ASSIGN_OR_RETURN(const int32_t tokens, count_(title, text));
      if (tokens > options_.target_tokens && end > begin + 1) {
        // By the excess at once: a whole chunk is counted a few times at most.
        const auto keep = static_cast<double>(end - begin) * options_.target_tokens / tokens;
        end = std::max(begin + 1, std::min(end - 1, begin + static_cast<size_t>(keep)));
      } else if (tokens > options_.target_tokens && SplitFirst(pieces, begin)) {
        end = begin + 1;
      } else {
        if (text.find_first_not_of(" \n\t") != std::string::npos) {
          chunks_.push_back({title, std::move(text)});
        }
        return end;
      }
    }
  }

  // Parts piece `at` in two if it can be; only titles beside long pieces ask for it.
  static bool SplitFirst(std::vector<Piece>* pieces, size_t at) {
    Piece first, second;
    SplitPiece((*pieces)[at], &first, &second);
    if (second.text.empty()) return false;
    first.tokens = second.tokens = ((*pieces)[at].tokens + 1) / 2;
    (*pieces)[at] = std::move(first);
    pieces->insert(pieces->begin() + static_cast<ptrdiff_t>(at) + 1, std::move(second));
    return true;
  }

  const ParsedDocument& document_;
  const ChunkerOptions& options_;
  const ChunkTokenCounter& count_;
  int32_t empty_tokens_ = 0;  // of a chunk without title and text
  std::vector<ChunkText> chunks_;
};

}  // namespace

Result<std::vector<ChunkText>> ChunkDocument(const ParsedDocument& document,
                                             const ChunkerOptions& options,
                                             const ChunkTokenCounter& count) {
  if (options.target_tokens < kLeastTarget || options.target_tokens > kMostTarget) {
    return InvalidArgument("chunk tokens must be " + std::to_string(kLeastTarget) + " to " +
                           std::to_string(kMostTarget) + ", found " +
                           std::to_string(options.target_tokens));
  }
  if (document.blocks.empty()) return std::vector<ChunkText>();
  return ChunkMaker(document, options, count).Run();
}

}  // namespace kvasir
