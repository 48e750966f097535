// The folder of an artifact and its files, mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

namespace kad {

/// Owns a mapping. The file must not be changed in place while it lives: an artifact is replaced by
/// renaming, as kad-export does.
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

/// An open folder. Its files are opened relative to it, so that they are all of the same artifact
/// even when another one is put in its place meanwhile.
class Folder {
 public:
  /// Raises KAD_ERROR_ARTIFACT_NOT_FOUND; KAD_ERROR_ARTIFACT_UNREADABLE, as all functions here,
  /// when the system does not give what is there: without permission, or where a disk fails.
  explicit Folder(const std::string& path);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string path_of(const std::string& name) const { return path_ + "/" + name; }
  /// Names of all entries.
  std::set<std::string> list() const;
  /// Size of a file. Raises KAD_ERROR_ARTIFACT_LISTING when it is missing, a link, or no regular
  /// file.
  uint64_t size_of(const std::string& name) const;
  /// Raises KAD_ERROR_ARTIFACT_LISTING as size_of does, and KAD_ERROR_ARTIFACT_SIZE when the file
  /// is larger than `most` bytes.
  MappedFile map(const std::string& name, uint64_t most) const;

 private:
  std::string path_;
  int descriptor_;
};

}  // namespace kad
