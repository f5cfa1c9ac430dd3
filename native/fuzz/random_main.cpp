// A main() for fuzz targets where libFuzzer is missing: seeded random bytes for so many seconds, without coverage.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 10.0;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0);
  const auto start = std::chrono::steady_clock::now();
  long long runs = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++runs) {
    std::vector<uint8_t> bytes(random() % 4096);
    for (uint8_t& b : bytes) b = uint8_t(random());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%lld runs\n", runs);
}
