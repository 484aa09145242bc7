// Macros of the files that are compiled once an instruction set.
#pragma once

// Functions whose arguments must live in registers.
#define KVASIR_INLINE inline __attribute__((always_inline))
// Loops over register tiles.
#define KVASIR_UNROLL _Pragma("GCC unroll 16")
