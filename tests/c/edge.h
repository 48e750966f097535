// Memory that ends where readable memory ends: one byte too many is a crash.
#ifndef KAD_TESTS_EDGE_H
#define KAD_TESTS_EDGE_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// A copy of the first `size` bytes of something, at that edge. It stays until the program ends.
static inline void* at_the_edge(const void* source, size_t size) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  unsigned char* memory = (unsigned char*)mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory + page, page, PROT_NONE) != 0) abort();
  memcpy(memory + page - size, source, size);
  return memory + page - size;
}

#endif
