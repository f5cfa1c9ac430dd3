// One source, several instruction sets: the loader picks the best clone for the processor it runs on.
#pragma once

// Resolvers of clones run before the address sanitizer is ready.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define TINYSEG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TINYSEG_CLONES  // elsewhere the baseline (NEON on 64-bit Arm) vectorises these loops already
#endif
