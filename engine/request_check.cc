#include "engine/request_check.h"

#include <cmath>
#include <string>

#include "engine/sampler.h"

namespace kvasir {
namespace {

std::string N(int64_t value) { return std::to_string(value); }

Status CheckTokens(const SegmentPlan& segment, const std::string& where, int32_t vocab) {
  for (const int32_t id : segment.token_ids) {
    if (id < 0 || id >= vocab) {
      return InvalidArgument(where + " holds token " + N(id) + "; the vocabulary has ids 0 to " +
                             N(vocab - 1));
    }
  }
  return Status::Ok();
}

Status CheckBlocks(const SegmentPlan& segment, const std::string& where, const BlockPool& pool) {
  if (!segment.blocks) return Status::Ok();
  const KvBlocks& blocks = *segment.blocks;
  if (blocks.tokens() < 0 || blocks.tokens() > segment.tokens()) {
    return InvalidArgument(where + " has KV of " + N(blocks.tokens()) + " tokens but only " +
                           N(segment.tokens()) + " tokens");
  }
  if (blocks.ids().size() != size_t(BlocksFor(blocks.tokens()))) {
    return InvalidArgument(where + " has " + N(int64_t(blocks.ids().size())) + " blocks for " +
                           N(blocks.tokens()) + " tokens; " + N(BlocksFor(blocks.tokens())) +
                           " are needed");
  }
  if (!pool.AllOwned(blocks.ids())) {
    return InvalidArgument(
        where + " names blocks that are not allocated in this engine's pool of " + N(pool.total()));
  }
  return Status::Ok();
}

Status CheckRecompute(const SegmentPlan& segment, const std::string& where) {
  int32_t previous = -1;
  for (const int32_t row : segment.recompute) {
    if (row <= previous || row >= segment.reused()) {
      return InvalidArgument(where + " recomputes row " + N(row) + " after row " + N(previous) +
                             "; rows must ascend and lie below " + N(segment.reused()));
    }
    previous = row;
  }
  return Status::Ok();
}

Status CheckSideBySide(const SegmentPlan& segment, const std::string& where, bool last) {
  if (!segment.side_by_side) return Status::Ok();
  if (!last && segment.reused() == segment.tokens() && segment.recompute.empty()) {
    return Status::Ok();
  }
  return InvalidArgument(where + " stands side by side with others: all its tokens must have KV, " +
                         "none may be computed again, and it cannot be the last");
}

bool IsPositive(float value) { return std::isfinite(value) && value > 0; }

Status CheckContext(const ContextScale& context) {
  if (IsPositive(context.temperature) && IsPositive(context.scale)) return Status::Ok();
  return InvalidArgument("the context's temperature is " + std::to_string(context.temperature) +
                         " and its scale " + std::to_string(context.scale) +
                         "; both must be above 0");
}

Status CheckSegments(const PromptPlan& prompt, int32_t vocab, const BlockPool& pool) {
  KVASIR_RETURN_IF_ERROR(CheckContext(prompt.context));
  for (size_t s = 0; s < prompt.segments.size(); ++s) {
    const SegmentPlan& segment = prompt.segments[s];
    const std::string where = "prompt segment " + N(int64_t(s));
    KVASIR_RETURN_IF_ERROR(CheckSideBySide(segment, where, s + 1 == prompt.segments.size()));
    KVASIR_RETURN_IF_ERROR(CheckTokens(segment, where, vocab));
    KVASIR_RETURN_IF_ERROR(CheckBlocks(segment, where, pool));
    KVASIR_RETURN_IF_ERROR(CheckRecompute(segment, where));
  }
  return Status::Ok();
}

// The last prompt token's logits start the answer, so its row must be computed.
Status CheckLastRow(const PromptPlan& prompt) {
  if (prompt.segments.empty() || prompt.segments.back().tokens() == 0) {
    return InvalidArgument("the prompt's last segment is empty: there is nothing to compute");
  }
  const SegmentPlan& last = prompt.segments.back();
  const bool computed = last.reused() < last.tokens() ||
                        (!last.recompute.empty() && last.recompute.back() == last.tokens() - 1);
  if (computed) return Status::Ok();
  return InvalidArgument("nothing to compute: the last of " + N(last.tokens()) +
                         " tokens of the last segment has KV and is not recomputed");
}

Status CheckForced(const Request& request, const RequestLimits& limits) {
  const int64_t prompt = PositionsOf(request.prompt);
  for (const std::vector<int32_t>& path : request.forced) {
    const auto tokens = static_cast<int64_t>(path.size());
    if (tokens == 0 || tokens > request.max_tokens || prompt + tokens > limits.max_context) {
      return InvalidArgument("a forced path has " + N(tokens) + " tokens; 1 to max_tokens (" +
                             N(request.max_tokens) + ") are possible, and prompt (" + N(prompt) +
                             ") and path must fit the context of " + N(limits.max_context));
    }
    for (const int32_t id : path) {
      if (id < 0 || id >= limits.vocab) {
        return InvalidArgument("a forced path holds token " + N(id) +
                               "; the vocabulary has ids 0 to " + N(limits.vocab - 1));
      }
    }
  }
  return Status::Ok();
}

// A probe's rows end before there are logits.
Status CheckProbe(const Request& request) {
  if (request.layers < 0 || (request.layers > 0 && request.max_tokens > 0)) {
    return InvalidArgument("layers is " + N(request.layers) + " and max_tokens " +
                           N(request.max_tokens) +
                           "; a request of its first layers only must have max_tokens 0");
  }
  if (request.attention && request.attention->rows < 0) {
    return InvalidArgument("attention is asked of " + N(request.attention->rows) +
                           " rows; it must be 0 (the last segment's) or more");
  }
  if (request.attention && request.prompt.context.scale != 1.0f) {
    return InvalidArgument("attention cannot be gathered where the context is scaled");
  }
  return Status::Ok();
}

Status CheckLength(const Request& request, int32_t max_context) {
  const int64_t tokens = PositionsOf(request.prompt);
  const int64_t room = max_context - (request.max_tokens > 0 ? 1 : 0);
  if (tokens <= room) return Status::Ok();
  return InvalidArgument("the prompt has " + N(tokens) + " tokens; the context holds " +
                         N(max_context) + (request.max_tokens > 0 ? ", the answer included" : ""));
}

}  // namespace

Status CheckRequest(const Request& request, const RequestLimits& limits, const BlockPool& pool) {
  if (request.max_tokens < 0) {
    return InvalidArgument("max_tokens is " + N(request.max_tokens) + "; it must be 0 or more");
  }
  KVASIR_RETURN_IF_ERROR(CheckSampling(request.sampling, limits.vocab));
  KVASIR_RETURN_IF_ERROR(CheckLastRow(request.prompt));
  KVASIR_RETURN_IF_ERROR(CheckLength(request, limits.max_context));
  KVASIR_RETURN_IF_ERROR(CheckForced(request, limits));
  KVASIR_RETURN_IF_ERROR(CheckProbe(request));
  return CheckSegments(request.prompt, limits.vocab, pool);
}

}  // namespace kvasir
