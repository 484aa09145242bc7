// Model files with the matrices of another, in another type.
#pragma once

#include <string>

#include "kernels/core/dtype.h"

namespace kvasir::test {

// Writes the GGUF file at `path` with every matrix as kF16 or kBF16, rounded to nearest even, into
// the test's temporary folder; returns the path of the new file, which is removed when the process
// ends. Vectors and metadata stay as they are.
std::string RetypeGguf(const std::string& path, DType dtype);

}  // namespace kvasir::test
