#include "library.hpp"

#include <dirent.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "failure.hpp"

namespace tinyseg {
namespace {

// The folder above the tinyseg package that this library lies in (tinyseg/lib/libtinyseg.so.1): site-packages, in a wheel.
std::string packages_folder() {
  static const char anchor = 0;
  Dl_info facts;
  if (!dladdr(&anchor, &facts) || !facts.dli_fname) return "";
  char* real = realpath(facts.dli_fname, nullptr);
  if (!real) return "";
  std::string path = real;
  std::free(real);
  for (int i = 0; i < 3; ++i) {
    const size_t slash = path.rfind('/');
    if (slash == std::string::npos) return "";
    path.resize(slash);
  }
  return path;
}

// Files of a folder whose names start with a prefix, the highest version first.
std::vector<std::string> files_named(const std::string& folder, const std::string& prefix) {
  std::vector<std::string> found;
  if (DIR* open = opendir(folder.c_str())) {
    while (const dirent* entry = readdir(open))
      if (std::strncmp(entry->d_name, prefix.c_str(), prefix.size()) == 0) found.push_back(folder + "/" + entry->d_name);
    closedir(open);
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

}  // namespace

void* open_library(const LibraryPlaces& places, const std::string& given) {
  std::vector<std::string> candidates;
  const char* named = std::getenv(places.variable);
  if (!given.empty()) {
    candidates = {given};
  } else if (named && *named) {
    candidates = {named};
  } else {
    const std::string packages = places.beside ? packages_folder() : "";
    if (!packages.empty()) candidates = files_named(packages + "/" + places.beside, places.prefix);
    candidates.insert(candidates.end(), places.system.begin(), places.system.end());
  }
  std::string tried;
  for (const std::string& candidate : candidates) {
    if (void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* why = dlerror();
    tried += (tried.empty() ? "" : "; ") + std::string(why ? why : candidate);
  }
  fail(TINYSEG_ENGINE_MISSING, "the library of ", places.engine, " does not load (", tried, "); install it with: ", places.install,
       ", or name its file in ", places.variable, " or tinyseg_options.library");
}

void* symbol(void* library, const char* engine, const char* name) {
  void* found = dlsym(library, name);
  if (!found)
    fail(TINYSEG_ENGINE_MISSING, "the library that was opened for ", engine, " has no ", name,
         ": it is another library, or too old; see docs/c.md for the versions that serve");
  return found;
}

}  // namespace tinyseg
