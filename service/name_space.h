// The namespace of KV: what is shared within it and never beyond. Pure functions, thread-safe.
#pragma once

#include <string>

namespace kvasir {

// A collection's name, or name and salt. No two pairs share a namespace: names hold no ':', and
// the salt's length stands before it.
std::string SaltedNamespace(const std::string& collection, const std::string& salt);

// The collection of a namespace. A salt may be a secret: this is what may be shown.
std::string CollectionOfNamespace(const std::string& name_space);

// Who asks, by the API key that the server knows: a digest; "" = there are no keys. Nothing that is
// drafted from past answers is shared across tenants.
std::string TenantOf(const std::string& api_key);

}  // namespace kvasir
