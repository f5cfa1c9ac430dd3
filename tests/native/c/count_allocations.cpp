// Preloaded into a program: counts the allocations that libtinyseg asks for, itself or through the C and C++ libraries, between
// two calls; what engines ask for in calls of their own is not its.
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
}

namespace {

std::atomic<bool> counting{false};
std::atomic<long> ours{0}, all{0};
thread_local bool inside = false;

// Whose code asked: the first frame on the stack that is neither this file's nor the C or C++ library's.
bool by_tinyseg() {
  void* stack[24];
  const int depth = backtrace(stack, 24);
  for (int i = 0; i < depth; ++i) {
    Dl_info where;
    if (!dladdr(stack[i], &where) || !where.dli_fname) continue;
    const char* name = where.dli_fname;
    if (std::strstr(name, "count_allocations") || std::strstr(name, "libstdc++") || std::strstr(name, "libc.so")) continue;
    return std::strstr(name, "libtinyseg") != nullptr;
  }
  return false;
}

void note() {
  if (!counting || inside) return;
  inside = true;
  ++all;
  if (by_tinyseg()) ++ours;
  inside = false;
}

void* from_new(size_t size) {
  note();
  if (void* p = __libc_malloc(size ? size : 1)) return p;
  throw std::bad_alloc();
}

}  // namespace

extern "C" {
void count_start() {
  void* stack[4];
  backtrace(stack, 4);  // its own first call allocates
  ours = all = 0;
  counting = true;
}
void count_stop(long* mine, long* everybody) {
  counting = false;
  *mine = ours;
  *everybody = all;
}
void* malloc(size_t size) {
  note();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  note();
  return __libc_calloc(count, size);
}
void* realloc(void* p, size_t size) {
  note();
  return __libc_realloc(p, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  note();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** p, size_t alignment, size_t size) {
  note();
  *p = __libc_memalign(alignment, size);
  return *p ? 0 : ENOMEM;
}
}

void* operator new(size_t size) { return from_new(size); }
void* operator new[](size_t size) { return from_new(size); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
