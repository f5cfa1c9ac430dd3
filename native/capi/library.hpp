// Engines' shared libraries, opened when they are asked for: nothing is linked.
#pragma once

#include <string>
#include <vector>

namespace tinyseg {

struct LibraryPlaces {
  const char* engine;                 // "onnxruntime"
  const char* variable;               // of the environment, holds the library's path
  const char* beside;                 // the folder in site-packages, when this library lies in the tinyseg wheel; or null
  const char* prefix;                 // of the file's name there
  std::vector<const char*> system;    // names that the loader finds by itself
  const char* install;                // the command that installs it
};

// The handle of the first library that opens: the one given, the variable's, the wheel's, the system's. It is never closed:
// engines keep threads. Throws Failure, naming what was tried.
void* open_library(const LibraryPlaces& places, const std::string& given);

// The address of a function. Throws Failure where the library has none of this name.
void* symbol(void* library, const char* engine, const char* name);

}  // namespace tinyseg
