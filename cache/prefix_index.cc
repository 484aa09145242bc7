#include "cache/prefix_index.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace kvasir {
namespace {

using BlockTokens = std::array<int32_t, kBlockTokens>;
using Tokens = std::span<const int32_t>;

// KvBlocks that somebody inserted, and how much of it the tree still refers to. Pool blocks of one
// owner are only given back together.
struct Owner {
  std::shared_ptr<const KvBlocks> blocks;
  int32_t nodes = 0;
  int32_t reachable = 0;  // blocks that nodes stood for when the owner came in
};

// A run of full blocks of one owner. The root of a namespace has an empty run.
struct Node {
  Node* parent = nullptr;
  std::vector<int32_t> tokens;  // a multiple of kBlockTokens
  std::shared_ptr<Owner> owner;
  int32_t first_block = 0;  // of the run, in owner->blocks->ids()
  uint64_t last_used = 0;
  std::map<BlockTokens, std::unique_ptr<Node>> children;  // by their first block

  int32_t blocks() const { return static_cast<int32_t>(tokens.size()) / kBlockTokens; }
};

BlockTokens FirstBlock(Tokens tokens) {
  BlockTokens block;
  std::copy_n(tokens.begin(), block.size(), block.begin());
  return block;
}

// Leading blocks that two token runs have in common.
int32_t CommonBlocks(Tokens a, Tokens b) {
  const size_t most = std::min(a.size(), b.size());
  const auto differ =
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin());
  return static_cast<int32_t>(differ.first - a.begin()) / kBlockTokens;
}

size_t TokensOf(int32_t blocks) { return static_cast<size_t>(blocks) * kBlockTokens; }

// One step of a walk: the child that continues with `rest`, and how many of its blocks agree.
struct Step {
  Node* child = nullptr;
  int32_t blocks = 0;
};
Step StepInto(const Node& node, Tokens rest) {
  if (rest.size() < static_cast<size_t>(kBlockTokens)) return {};
  const auto at = node.children.find(FirstBlock(rest));
  if (at == node.children.end()) return {};
  return {at->second.get(), CommonBlocks(at->second->tokens, rest)};
}

// Blocks put together from runs of several owners; keeps the owners' blocks alive.
class View {
 public:
  void Add(const Node& node, int32_t count) {
    const std::vector<int32_t>& from = node.owner->blocks->ids();
    const auto begin = from.begin() + node.first_block;
    ids_.insert(ids_.end(), begin, begin + count);
    if (parents_.empty() || parents_.back() != node.owner->blocks) {
      parents_.push_back(node.owner->blocks);
    }
  }
  std::shared_ptr<const KvBlocks> Finish() {
    if (ids_.empty()) return nullptr;
    const auto tokens = static_cast<int32_t>(ids_.size()) * kBlockTokens;
    return std::make_shared<const KvBlocks>(
        std::move(ids_), tokens, [kept = std::move(parents_)](const std::vector<int32_t>&) {});
  }

 private:
  std::vector<int32_t> ids_;
  std::vector<std::shared_ptr<const KvBlocks>> parents_;
};

}  // namespace

struct PrefixIndex::State {
  using Released = std::vector<std::shared_ptr<const KvBlocks>>;

  Node& RootOf(std::string_view name_space);
  void Touch(Node& node, uint64_t tick);
  Node& Split(Node& node, int32_t blocks);
  void AddLeaf(Node& parent, Tokens tokens, size_t at, std::shared_ptr<const KvBlocks> blocks);
  int32_t DropNode(Node& leaf, Released& released);
  Node* OldestUnusedLeaf() const;
  void KeepBudget(Released& released);
  bool IsLeaf(const Node& node) const { return node.parent != nullptr && node.children.empty(); }

  mutable std::mutex mutex;  // guards everything here
  std::map<std::string, std::unique_ptr<Node>, std::less<>> roots;
  std::set<std::pair<uint64_t, Node*>> leaves;  // by last use
  uint64_t clock = 0;
  uint64_t max_blocks = 0;  // 0 = no bound
  PrefixIndexStats stats;
};

Node& PrefixIndex::State::RootOf(std::string_view name_space) {
  const auto at = roots.find(name_space);
  if (at != roots.end()) return *at->second;
  return *roots.emplace(std::string(name_space), std::make_unique<Node>()).first->second;
}

void PrefixIndex::State::Touch(Node& node, uint64_t tick) {
  if (IsLeaf(node)) {
    leaves.erase({node.last_used, &node});
    leaves.insert({tick, &node});
  }
  node.last_used = tick;
}

// Cuts a run after `blocks` blocks; returns the upper part, whose only child is the lower.
Node& PrefixIndex::State::Split(Node& node, int32_t blocks) {
  Node& parent = *node.parent;
  const BlockTokens key = FirstBlock(node.tokens);
  std::unique_ptr<Node> lower = std::move(parent.children.at(key));
  auto upper = std::make_unique<Node>();
  const auto cut = node.tokens.begin() + static_cast<std::ptrdiff_t>(TokensOf(blocks));
  upper->parent = &parent;
  upper->tokens.assign(node.tokens.begin(), cut);
  upper->owner = node.owner;
  upper->first_block = node.first_block;
  upper->last_used = node.last_used;
  lower->tokens.erase(lower->tokens.begin(), cut);
  lower->first_block += blocks;
  lower->parent = upper.get();
  ++node.owner->nodes;
  ++stats.nodes;
  const BlockTokens lower_key = FirstBlock(lower->tokens);
  upper->children.emplace(lower_key, std::move(lower));
  Node& result = *upper;
  parent.children.at(key) = std::move(upper);
  return result;
}

// A leaf for tokens[at...), whose KV lies in `blocks` at the same place.
void PrefixIndex::State::AddLeaf(Node& parent, Tokens tokens, size_t at,
                                 std::shared_ptr<const KvBlocks> blocks) {
  const Tokens rest = tokens.subspan(at);
  auto leaf = std::make_unique<Node>();
  const auto stored = static_cast<int32_t>(rest.size()) / kBlockTokens;
  leaf->parent = &parent;
  leaf->tokens.assign(rest.begin(), rest.end());
  leaf->first_block = static_cast<int32_t>(at) / kBlockTokens;
  leaf->owner = std::make_shared<Owner>(Owner{std::move(blocks), 1, stored});
  leaf->last_used = clock;
  if (IsLeaf(parent)) leaves.erase({parent.last_used, &parent});
  leaves.insert({leaf->last_used, leaf.get()});
  ++stats.nodes;
  stats.blocks += static_cast<uint64_t>(stored);
  const BlockTokens key = FirstBlock(leaf->tokens);
  parent.children.emplace(key, std::move(leaf));
}

// Removes a leaf; returns the blocks that are given back by it: those of its owner, if it was the
// owner's last node.
int32_t PrefixIndex::State::DropNode(Node& leaf, Released& released) {
  leaves.erase({leaf.last_used, &leaf});
  --stats.nodes;
  stats.blocks -= static_cast<uint64_t>(leaf.blocks());
  int32_t freed = 0;
  if (--leaf.owner->nodes == 0) {
    freed = leaf.owner->reachable;
    released.push_back(std::move(leaf.owner->blocks));
  }
  Node& parent = *leaf.parent;
  parent.children.erase(FirstBlock(leaf.tokens));
  if (IsLeaf(parent)) leaves.insert({parent.last_used, &parent});
  return freed;
}

Node* PrefixIndex::State::OldestUnusedLeaf() const {
  for (const auto& [tick, leaf] : leaves) {
    // Views copy the owner's pointer under our mutex, so a count of one cannot grow meanwhile.
    if (leaf->owner->blocks.use_count() == 1) return leaf;
  }
  return nullptr;
}

void PrefixIndex::State::KeepBudget(Released& released) {
  while (max_blocks > 0 && stats.blocks > max_blocks) {
    Node* leaf = OldestUnusedLeaf();
    if (leaf == nullptr) return;
    stats.evicted_blocks += static_cast<uint64_t>(DropNode(*leaf, released));
  }
}

PrefixIndex::PrefixIndex(int32_t max_blocks) : state_(std::make_unique<State>()) {
  state_->max_blocks = static_cast<uint64_t>(std::max(max_blocks, 0));
}
PrefixIndex::~PrefixIndex() = default;

std::shared_ptr<const KvBlocks> PrefixIndex::Match(std::string_view name_space,
                                                   std::span<const int32_t> token_ids) {
  View view;
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State& state = *state_;
  ++state.stats.lookups;
  state.stats.tokens_asked += token_ids.size();
  const auto root = state.roots.find(name_space);
  if (root == state.roots.end()) return nullptr;
  const uint64_t tick = ++state.clock;
  size_t at = 0;
  for (Node* node = root->second.get();;) {
    const Step step = StepInto(*node, token_ids.subspan(at));
    if (step.blocks == 0) break;
    state.Touch(*step.child, tick);
    view.Add(*step.child, step.blocks);
    at += TokensOf(step.blocks);
    if (step.blocks < step.child->blocks()) break;
    node = step.child;
  }
  state.stats.hits += at > 0 ? 1 : 0;
  state.stats.tokens_matched += at;
  return view.Finish();
}

int32_t PrefixIndex::MatchedTokens(std::string_view name_space,
                                   std::span<const int32_t> token_ids) const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto root = state_->roots.find(name_space);
  if (root == state_->roots.end()) return 0;
  size_t at = 0;
  for (const Node* node = root->second.get();;) {
    const Step step = StepInto(*node, token_ids.subspan(at));
    at += TokensOf(step.blocks);
    if (step.blocks == 0 || step.blocks < step.child->blocks()) break;
    node = step.child;
  }
  return static_cast<int32_t>(at);
}

void PrefixIndex::Insert(std::string_view name_space, std::span<const int32_t> token_ids,
                         std::shared_ptr<const KvBlocks> blocks) {
  if (!blocks) return;
  const size_t held = std::min(static_cast<size_t>(std::max(blocks->tokens(), 0)),
                               blocks->ids().size() * kBlockTokens);
  const size_t whole = std::min(held, token_ids.size()) / kBlockTokens * kBlockTokens;
  if (whole == 0) return;
  const Tokens tokens = token_ids.first(whole);
  State::Released released;  // destroyed after the lock
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State& state = *state_;
  const uint64_t tick = ++state.clock;
  Node* node = &state.RootOf(name_space);
  size_t at = 0;
  while (at < whole) {
    const Step step = StepInto(*node, tokens.subspan(at));
    if (step.blocks == 0) break;
    state.Touch(*step.child, tick);
    at += TokensOf(step.blocks);
    node = step.child;
    if (step.blocks < step.child->blocks()) {
      if (at < whole) node = &state.Split(*step.child, step.blocks);
      break;
    }
  }
  if (at == whole) return;
  state.AddLeaf(*node, tokens, at, std::move(blocks));
  state.KeepBudget(released);
}

Status PrefixIndex::InsertPrompt(std::string_view name_space, const PromptPlan& plan,
                                 std::shared_ptr<const KvBlocks> blocks) {
  if (plan.segments.size() != 1 || plan.segments[0].reuse == ReuseKind::kFused ||
      !plan.segments[0].recompute.empty()) {
    return InvalidArgument("only exact KV may enter the prefix index");
  }
  Insert(name_space, plan.segments[0].token_ids, std::move(blocks));
  return Status::Ok();
}

void PrefixIndex::RemoveNamespace(std::string_view name_space) {
  State::Released released;  // destroyed after the lock
  const std::lock_guard<std::mutex> lock(state_->mutex);
  State& state = *state_;
  const auto root = state.roots.find(name_space);
  if (root == state.roots.end()) return;
  while (!root->second->children.empty()) {
    Node* node = root->second->children.begin()->second.get();
    while (!node->children.empty()) node = node->children.begin()->second.get();
    state.DropNode(*node, released);
  }
  state.roots.erase(root);
}

int32_t PrefixIndex::ReclaimBlocks(int32_t blocks) {
  State::Released released;  // given back after the lock: that takes the engine's own lock
  const std::lock_guard<std::mutex> lock(state_->mutex);
  int32_t freed = 0;
  while (freed < blocks) {
    Node* leaf = state_->OldestUnusedLeaf();
    if (leaf == nullptr) break;
    freed += state_->DropNode(*leaf, released);
  }
  state_->stats.evicted_blocks += static_cast<uint64_t>(freed);
  return freed;
}

PrefixIndexStats PrefixIndex::stats() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->stats;
}

}  // namespace kvasir
