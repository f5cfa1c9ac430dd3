// What the processor can do, as far as engines and precisions depend on it; as tinyseg/engines/cpu.py tells it.
#pragma once

#include <string>

namespace tinyseg {

// Cores that this process may use.
int available_cores();

// Whether this is an x86 processor that sums products of 8-bit integers in 16 bits, which saturate; false also where the
// instruction sets cannot be told.
bool int8_saturates();

// The same, and true also on an x86 processor whose instruction sets cannot be told.
bool int8_may_saturate();

// Tells processors apart whose compiled graphs differ: the architecture and a digest of its instruction sets.
std::string processor_fingerprint();

}  // namespace tinyseg
