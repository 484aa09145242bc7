// The command line: flags to a configuration, a subcommand to its function.
#pragma once

namespace kvasir {

int RunCommandLine(int argc, const char* const* argv);

}  // namespace kvasir
