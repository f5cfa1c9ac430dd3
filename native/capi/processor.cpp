#include "processor.hpp"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>

#include "sha256.hpp"

namespace tinyseg {
namespace {

// Instruction sets that all cores have, as the Linux kernel names them.
std::set<std::string> flags() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> common;
  bool any = false;
  for (std::string line; std::getline(file, line);) {
    // "flags" on x86, "Features" on Arm.
    if (line.compare(0, 5, "flags") != 0 && line.compare(0, 8, "Features") != 0) continue;
    const size_t colon = line.find(':');
    std::istringstream words(colon == std::string::npos ? "" : line.substr(colon + 1));
    const std::set<std::string> own{std::istream_iterator<std::string>(words), {}};
    std::set<std::string> both;
    std::set_intersection(common.begin(), common.end(), own.begin(), own.end(), std::inserter(both, both.end()));
    common = any ? both : own;
    any = true;
  }
  return common;
}

std::string machine() {
  utsname names;
  return uname(&names) == 0 ? names.machine : "";
}

}  // namespace

int available_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
  return std::max(1, int(std::thread::hardware_concurrency()));
}

bool int8_saturates() { return !flags().empty() && int8_may_saturate(); }

bool int8_may_saturate() {
  const std::set<std::string> known = flags();
  for (const char* able : {"amx_int8", "avx512_vnni", "avx_vnni"})
    if (known.count(able)) return false;
  return machine() == "x86_64";
}

std::string processor_fingerprint() {
  std::string joined;
  for (const std::string& flag : flags()) joined += (joined.empty() ? "" : " ") + flag;
  return machine() + "-" + sha256(joined.data(), joined.size()).substr(0, 12);
}

}  // namespace tinyseg
