// The system refuses a folder, a file, a listing or a mapping: each reason with its status and its
// text, no descriptor is lost, and the artifact opens afterwards.
//   test_system ARTIFACT
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "../check.h"
#include "../descriptors.h"
#include "toy_network.h"

// The call that fails next: its function, how many go before it, and why.
static const char* due_function = "";
static int due_after;
static int due_error;

static int fails(const char* function) {
  if (strcmp(function, due_function) != 0 || due_after-- > 0) return 0;
  due_function = "";
  errno = due_error;
  return 1;
}

// The C library's own function of that name, as `next`.
#define NEXT(name)               \
  __typeof__(&name) next = NULL; \
  *(void**)&next = dlsym(RTLD_NEXT, #name)

int open(const char* path, int flags, ...) {
  NEXT(open);
  va_list rest;
  va_start(rest, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0;
  va_end(rest);
  return fails("open") ? -1 : next(path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  NEXT(openat);
  const char* function = (flags & O_DIRECTORY) != 0 ? "openat of a folder" : "openat";
  return fails(function) ? -1 : next(folder, path, flags);
}

int fstat(int file, struct stat* status) {
  NEXT(fstat);
  return fails("fstat") ? -1 : next(file, status);
}

DIR* fdopendir(int folder) {
  NEXT(fdopendir);
  return fails("fdopendir") ? NULL : next(folder);
}

struct dirent* readdir(DIR* listing) {
  NEXT(readdir);
  return fails("readdir") ? NULL : next(listing);
}

void* mmap(void* address, size_t bytes, int protection, int flags, int file, off_t offset) {
  NEXT(mmap);
  if (file >= 0 && fails("mmap")) return MAP_FAILED;
  return next(address, bytes, protection, flags, file, offset);
}

typedef struct refusal {
  const char* function;
  int after;
  int error;
  kad_status status;
  const char* words;
} refusal;

enum {
  NOT_FOUND = KAD_ERROR_ARTIFACT_NOT_FOUND,
  LISTING = KAD_ERROR_ARTIFACT_LISTING,
  UNREADABLE = KAD_ERROR_ARTIFACT_UNREADABLE,
  MEMORY = KAD_ERROR_OUT_OF_MEMORY
};

static const refusal refusals[] = {
    {"open", 0, ENOENT, NOT_FOUND, "expected an artifact, a folder NAME.kad"},
    {"open", 0, ENOTDIR, NOT_FOUND, "expected an artifact, a folder NAME.kad"},
    {"open", 0, EACCES, UNREADABLE, "cannot be opened: Permission denied; allow this user"},
    {"open", 0, EMFILE, UNREADABLE, "how many files are open"},
    {"open", 0, EIO, UNREADABLE, "cannot be opened: Input/output error; check the disk"},
    {"open", 0, ENOMEM, MEMORY, "out of memory"},
    {"openat", 0, ENOENT, LISTING, "manifest.json: is missing; copy the artifact again"},
    {"openat", 0, ELOOP, LISTING, "manifest.json: expected a regular file"},
    {"openat", 0, ENXIO, LISTING, "manifest.json: expected a regular file"},
    {"openat", 0, EACCES, UNREADABLE, "manifest.json: cannot be opened: Permission denied"},
    {"openat", 0, EPERM, UNREADABLE, "allow this user to read it"},
    {"openat", 0, EIO, UNREADABLE, "manifest.json: cannot be opened: Input/output error"},
    {"openat", 0, ENOMEM, MEMORY, "out of memory"},
    {"openat", 1, EMFILE, UNREADABLE, ".safetensors: cannot be opened: Too many open files"},
    {"openat", 5, EIO, UNREADABLE, "cannot be opened: Input/output error"},
    {"openat of a folder", 0, EMFILE, UNREADABLE, ".kad: cannot be listed: Too many open files"},
    {"fdopendir", 0, ENOMEM, MEMORY, "out of memory"},
    {"fstat", 0, EIO, UNREADABLE, "manifest.json: cannot be looked at: Input/output error"},
    {"readdir", 0, EIO, UNREADABLE, ".kad: cannot be listed: Input/output error"},
    {"readdir", 3, EIO, UNREADABLE, ".kad: cannot be listed: Input/output error"},
    {"mmap", 0, ENOMEM, MEMORY, "out of memory"},
    {"mmap", 0, ENODEV, UNREADABLE, "manifest.json: cannot be mapped: No such device"},
    {"mmap", 2, EAGAIN, UNREADABLE, "cannot be mapped: Resource temporarily unavailable"},
};

int main(int argc, char** argv) {
  if (argc != 2) return EXIT_FAILURE;
  const kad_detector_options options = toy_options();
  kad_detector* detector = NULL;
  const int descriptors = open_descriptors();
  for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); ++i) {
    const refusal* given = refusals + i;
    due_after = given->after;
    due_error = given->error;
    due_function = given->function;
    CHECK_FAILS(kad_detector_open(argv[1], &options, &detector), given->status, given->words);
    CHECK(detector == NULL && strcmp(due_function, "") == 0);
    CHECK(open_descriptors() == descriptors);
    CHECK_OK(kad_detector_open(argv[1], &options, &detector));
    kad_detector_close(detector);
    detector = NULL;
  }
  printf("%zu refusals of the system\n", sizeof(refusals) / sizeof(refusals[0]));
  return check_result();
}
