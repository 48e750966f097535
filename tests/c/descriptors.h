// What the system counts.
#ifndef KAD_TESTS_DESCRIPTORS_H
#define KAD_TESTS_DESCRIPTORS_H

#include <dirent.h>

// How many files this process has open, one of them for the question.
static inline int open_descriptors(void) {
  DIR* listing = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(listing) != NULL) ++n;
  closedir(listing);
  return n;
}

#endif
