#include "service/name_space.h"

#include "cache/digest.h"

namespace kvasir {

std::string SaltedNamespace(const std::string& collection, const std::string& salt) {
  if (salt.empty()) return collection;
  return "salt:" + std::to_string(salt.size()) + ":" + salt + ":" + collection;
}

std::string CollectionOfNamespace(const std::string& name_space) {
  return name_space.substr(name_space.rfind(':') + 1);  // npos + 1 = 0
}

std::string TenantOf(const std::string& api_key) {
  if (api_key.empty()) return "";
  return DigestBuilder("tenant").Add("api key", api_key).Finish().Hex();
}

}  // namespace kvasir
