#include "service/cli/app.h"

int main(int argc, char** argv) { return kvasir::RunCommandLine(argc, argv); }
