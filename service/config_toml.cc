#include <toml++/toml.h>

#include <cstdio>

#include "service/config.h"

namespace kvasir {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

Result<std::string> ScalarText(const toml::node& node, const std::string& key) {
  if (auto text = node.value_exact<std::string>()) return *text;
  if (auto number = node.value_exact<int64_t>()) return std::to_string(*number);
  if (auto number = node.value_exact<double>()) {
    char number_text[40];
    std::snprintf(number_text, sizeof number_text, "%.17g", *number);
    return std::string(number_text);
  }
  if (auto flag = node.value_exact<bool>()) return std::string(*flag ? "true" : "false");
  return InvalidArgument(key + ": the value must be a string, a number or a list of strings");
}

Result<std::string> NodeText(const toml::node& node, const std::string& key) {
  if (!node.is_array()) return ScalarText(node, key);
  std::string joined;
  for (const toml::node& element : *node.as_array()) {
    KVASIR_ASSIGN_OR_RETURN(const std::string text, ScalarText(element, key));
    if (!joined.empty()) joined += ',';
    joined += text;
  }
  return joined;
}

Status Flatten(const toml::table& table, const std::string& prefix, Pairs* out) {
  for (const auto& [name, node] : table) {
    const std::string key = prefix + std::string(name.str());
    if (node.is_table()) {
      KVASIR_RETURN_IF_ERROR(Flatten(*node.as_table(), key + ".", out));
      continue;
    }
    KVASIR_ASSIGN_OR_RETURN(std::string text, NodeText(node, key));
    out->emplace_back(key, std::move(text));
  }
  return Status::Ok();
}

}  // namespace

Result<Pairs> ReadTomlFile(const std::string& path) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return InvalidArgument(path + ": line " + std::to_string(error.source().begin.line) + ": " +
                           std::string(error.description()));
  }
  Pairs pairs;
  const Status status = Flatten(table, "", &pairs);
  if (!status.ok()) return InvalidArgument(path + ": " + status.message());
  return pairs;
}

}  // namespace kvasir
