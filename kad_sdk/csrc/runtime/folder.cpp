#include "runtime/folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "base/guard.hpp"

namespace kad {
namespace {

/// Closes a descriptor at the end of the block.
struct Descriptor {
  explicit Descriptor(int given) : number(given) {}
  ~Descriptor() {
    if (number >= 0) close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number;
};

struct CloseListing {
  void operator()(DIR* listing) const { closedir(listing); }
};

// The system does not give what is there: it is not the artifact that is at fault.
[[noreturn]] void fail_to_read(const std::string& path, const char* what, int error) {
  if (error == ENOMEM) throw std::bad_alloc();
  fail(KAD_ERROR_ARTIFACT_UNREADABLE, "%s: cannot be %s: %s; %s", path.c_str(), what,
       std::strerror(error),
       error == EACCES || error == EPERM ? "allow this user to read it"
                                         : "check the disk, and how many files are open");
}

[[noreturn]] void refuse_kind(const std::string& path) {
  fail(KAD_ERROR_ARTIFACT_LISTING,
       "%s: expected a regular file, since links and folders are not allowed in an artifact; copy "
       "the artifact again",
       path.c_str());
}

[[noreturn]] void fail_to_open_file(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
      fail(KAD_ERROR_ARTIFACT_LISTING, "%s: is missing; copy the artifact again", path.c_str());
    case ELOOP:  // a link
    case ENXIO:  // a socket
      refuse_kind(path);
    default:
      fail_to_read(path, "opened", error);
  }
}

[[noreturn]] void fail_to_open_folder(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ELOOP:
      fail(KAD_ERROR_ARTIFACT_NOT_FOUND,
           "%s: expected an artifact, a folder NAME.kad: %s; give the path of one that kad-export "
           "made",
           path.c_str(), std::strerror(error));
    default:
      fail_to_read(path, "opened", error);
  }
}

// The size of a regular file; of anything else, an error.
uint64_t regular_size(int descriptor, const std::string& path) {
  struct stat status = {};
  if (fstat(descriptor, &status) != 0) fail_to_read(path, "looked at", errno);
  if (!S_ISREG(status.st_mode)) refuse_kind(path);
  return static_cast<uint64_t>(status.st_size);
}

// Without O_NONBLOCK, opening a pipe that somebody put there would wait for ever.
int open_file(int folder, const std::string& name, const std::string& path) {
  const int file = openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) fail_to_open_file(path, errno);
  return file;
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

Folder::Folder(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail_to_open_folder(path, errno);
}

Folder::~Folder() { close(descriptor_); }

std::set<std::string> Folder::list() const {
  const int copy = openat(descriptor_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseListing> listing(copy < 0 ? nullptr : fdopendir(copy));
  if (listing == nullptr) {
    const int error = errno;
    const Descriptor unused(copy);
    fail_to_read(path_, "listed", error);
  }
  std::set<std::string> names;
  for (;;) {
    errno = 0;  // at the end of a folder it stays so
    const dirent* entry = readdir(listing.get());
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.insert(name);
  }
  if (errno != 0) fail_to_read(path_, "listed", errno);
  return names;
}

uint64_t Folder::size_of(const std::string& name) const {
  const std::string path = path_of(name);
  const Descriptor file(open_file(descriptor_, name, path));
  return regular_size(file.number, path);
}

MappedFile Folder::map(const std::string& name, uint64_t most) const {
  const std::string path = path_of(name);
  const Descriptor file(open_file(descriptor_, name, path));
  const uint64_t size = regular_size(file.number, path);
  if (size > most) {
    fail(KAD_ERROR_ARTIFACT_SIZE,
         "%s: expected at most %llu bytes, got %llu; copy the artifact again", path.c_str(),
         static_cast<unsigned long long>(most), static_cast<unsigned long long>(size));
  }
  if (size == 0) return {};
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (memory == MAP_FAILED) fail_to_read(path, "mapped", errno);
  return {static_cast<const uint8_t*>(memory), size};
}

}  // namespace kad
