/* Stands before OpenVINO's C library: everything goes to the real one, which it is linked with. For each graph that is compiled,
 * standard output gets the properties that were asked for, and how OpenVINO took the last of them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16 };

static void* real(const char* name) {
  void* found = dlsym(RTLD_NEXT, name);
  if (!found) abort();
  return found;
}

int ov_core_compile_model(const void* core, const void* model, const char* device, size_t count, void** compiled, ...) {
  int (*compile)(const void*, const void*, const char*, size_t, void**, ...);
  int (*property)(const void*, const char*, char**);
  void (*release)(const char*);
  const char* words[MOST] = {0};
  char* taken = NULL;
  size_t i;
  int status;
  va_list arguments;
  *(void**)&compile = real("ov_core_compile_model");
  *(void**)&property = real("ov_compiled_model_get_property");
  *(void**)&release = real("ov_free");
  if (count < 2 || count > MOST) abort();
  va_start(arguments, compiled);
  for (i = 0; i < count; ++i) words[i] = va_arg(arguments, const char*);
  va_end(arguments);
  status = compile(core, model, device, count, compiled, words[0], words[1], words[2], words[3], words[4], words[5], words[6], words[7],
                   words[8], words[9], words[10], words[11], words[12], words[13], words[14], words[15]);
  for (i = 0; i < count; i += 2) printf("%s=%s ", words[i], words[i + 1]);
  if (status == 0 && property(*compiled, words[count - 2], &taken) == 0) {
    printf("taken=%s", taken);
    release(taken);
  }
  printf("\n");
  fflush(stdout);
  return status;
}
