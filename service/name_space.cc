#include "service/name_space.h"

namespace kvasir {

std::string SaltedNamespace(const std::string& collection, const std::string& salt) {
  if (salt.empty()) return collection;
  return "salt:" + std::to_string(salt.size()) + ":" + salt + ":" + collection;
}

std::string CollectionOfNamespace(const std::string& name_space) {
  return name_space.substr(name_space.rfind(':') + 1);  // npos + 1 = 0
}

}  // namespace kvasir
