#include "runtime/folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
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

// The size of a regular file; of anything else, an error.
uint64_t regular_size(int descriptor, const std::string& path) {
  struct stat status = {};
  const bool opened = descriptor >= 0 && fstat(descriptor, &status) == 0;
  if (!opened && errno != ELOOP) {
    fail(KAD_ERROR_ARTIFACT_LISTING, "%s: cannot be opened: %s; copy the artifact again",
         path.c_str(), std::strerror(errno));
  }
  if (!opened || !S_ISREG(status.st_mode)) {
    fail(KAD_ERROR_ARTIFACT_LISTING,
         "%s: expected a regular file; links and folders are not allowed in an artifact",
         path.c_str());
  }
  return static_cast<uint64_t>(status.st_size);
}

// Without O_NONBLOCK, opening a pipe that somebody put there would wait for ever.
int open_file(int folder, const std::string& name) {
  return openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
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
  if (descriptor_ < 0) {
    fail(KAD_ERROR_ARTIFACT_NOT_FOUND,
         "%s: expected an artifact, a folder NAME.kad: %s; give the path of one that kad-export "
         "made",
         path.c_str(), std::strerror(errno));
  }
}

Folder::~Folder() { close(descriptor_); }

std::set<std::string> Folder::list() const {
  const int copy = openat(descriptor_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, CloseListing> listing(copy < 0 ? nullptr : fdopendir(copy));
  if (listing == nullptr) {
    const Descriptor unused(copy);
    fail(KAD_ERROR_ARTIFACT_NOT_FOUND, "%s: cannot be listed: %s", path_.c_str(),
         std::strerror(errno));
  }
  std::set<std::string> names;
  while (const dirent* entry = readdir(listing.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.insert(name);
  }
  return names;
}

uint64_t Folder::size_of(const std::string& name) const {
  const Descriptor file(open_file(descriptor_, name));
  return regular_size(file.number, path_of(name));
}

MappedFile Folder::map(const std::string& name, uint64_t most) const {
  const Descriptor file(open_file(descriptor_, name));
  const uint64_t size = regular_size(file.number, path_of(name));
  if (size > most) {
    fail(KAD_ERROR_ARTIFACT_SIZE, "%s: expected at most %llu bytes, got %llu",
         path_of(name).c_str(), static_cast<unsigned long long>(most),
         static_cast<unsigned long long>(size));
  }
  if (size == 0) return {};
  void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (memory == MAP_FAILED) {
    fail(errno == ENOMEM ? KAD_ERROR_OUT_OF_MEMORY : KAD_ERROR_ARTIFACT_LISTING,
         "%s: cannot be mapped: %s", path_of(name).c_str(), std::strerror(errno));
  }
  return {static_cast<const uint8_t*>(memory), size};
}

}  // namespace kad
