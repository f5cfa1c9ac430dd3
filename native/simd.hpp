// One source, several instruction sets: the loader picks the best clone for the processor it runs on.
#pragma once

#include <cstdint>

// Resolvers of clones run before the address sanitizer is ready.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define TINYSEG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TINYSEG_CLONES  // elsewhere the baseline (NEON on 64-bit Arm) vectorises these loops already
#endif

// What clones share is compiled into each of them.
#define TINYSEG_INLINE __attribute__((always_inline)) inline

// Elements of two vectors of eight 32-bit lanes, the second's counted from 8.
#ifdef __clang__
#define TINYSEG_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t TinysegLaneNumbers __attribute__((vector_size(32)));
#define TINYSEG_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, TinysegLaneNumbers{__VA_ARGS__})
#endif
