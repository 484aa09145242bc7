// ByteTrie: a set of byte strings with ids, searched for those that a text begins with.
//
// Filled once, then read from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "engine/tokenizer/flat_map.h"

namespace kvasir {

class ByteTrie {
 public:
  // Of equal texts the first id stays; an empty text is ignored.
  void Insert(std::string_view text, int32_t id) {
    if (text.empty()) return;
    uint32_t parent = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const auto number = static_cast<uint32_t>(nodes_.size() + 1);
      Node& node = nodes_.Insert(Key(parent, text[i]), Node{number, -1});
      if (i + 1 == text.size() && node.id < 0) node.id = id;
      parent = node.number;
    }
    begins_[static_cast<unsigned char>(text[0])] = true;
  }

  bool empty() const { return nodes_.size() == 0; }
  // Whether any member begins with this byte.
  bool Begins(char byte) const { return begins_[static_cast<unsigned char>(byte)]; }

  // Calls found(length, id) for every member that `text` begins with, shortest first.
  template <typename Found>
  void ForEachPrefix(std::string_view text, const Found& found) const {
    uint64_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const Node* next = nodes_.Find(Key(node, text[i]));
      if (next == nullptr) return;
      node = next->number;
      if (next->id >= 0) found(i + 1, next->id);
    }
  }

 private:
  struct Node {
    uint32_t number = 0;
    int32_t id = -1;  // of the member that ends here
  };
  static uint64_t Key(uint64_t node, char byte) {
    return node << 8 | static_cast<unsigned char>(byte);
  }

  FlatMap<Node> nodes_;  // (parent's number, byte) -> node; the root is number 0
  std::array<bool, 256> begins_{};
};

}  // namespace kvasir
