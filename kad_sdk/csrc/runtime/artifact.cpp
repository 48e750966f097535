#include "runtime/artifact.hpp"

#include "base/guard.hpp"
#include "runtime/artifact_layout.hpp"
#include "runtime/inspection.hpp"
#include "runtime/sha256.hpp"

namespace kad {
namespace {

constexpr const char* kManifestName = "manifest.json";

// The folder holds the listed files, at the listed sizes, and no others but what was set on site,
// which no manifest lists. Whether that is there.
bool check_listing(const Folder& folder, const Manifest& manifest) {
  const std::set<std::string> found = folder.list();
  for (const std::string& name : found) {
    const bool own = name == kManifestName || name == kInspectionName;
    if (!own && manifest.files.count(name) == 0) {
      fail(KAD_ERROR_ARTIFACT_LISTING,
           "%s: is not listed in the manifest; remove it, or copy the artifact again",
           folder.path_of(name).c_str());
    }
  }
  for (const auto& [name, entry] : manifest.files) {
    if (found.count(name) == 0) {
      fail(KAD_ERROR_ARTIFACT_LISTING,
           "%s: is listed in the manifest but is missing; copy the artifact again",
           folder.path_of(name).c_str());
    }
    const uint64_t size = folder.size_of(name);
    if (size != entry.size) {
      fail(KAD_ERROR_ARTIFACT_SIZE,
           "%s: expected %llu bytes, got %llu: the file was changed or cut off; copy the artifact "
           "again",
           folder.path_of(name).c_str(), static_cast<unsigned long long>(entry.size),
           static_cast<unsigned long long>(size));
    }
  }
  return found.count(kInspectionName) > 0;
}

// Map a file and hash the mapping, so that what was checked is what is used.
MappedFile map_checked(const Folder& folder, const std::string& name, const FileEntry& entry) {
  MappedFile file = folder.map(name, entry.size);
  const std::string digest = sha256_hex(file.data(), file.size());
  if (file.size() != entry.size || digest != entry.sha256) {
    fail(KAD_ERROR_ARTIFACT_HASH,
         "%s: expected SHA-256 %s, got %s: the file was changed; copy the artifact again",
         folder.path_of(name).c_str(), entry.sha256.c_str(), digest.c_str());
  }
  return file;
}

Tensors read_tensors(const Artifact& artifact, const std::string& name,
                     const TensorLayouts& layout) {
  const MappedFile& file = artifact.file(name);
  const std::string where = artifact.path + "/" + name;
  Tensors tensors = parse_tensors(file.data(), file.size(), where);
  check_tensors(tensors, layout, where);
  return tensors;
}

void read_method(Artifact* artifact) {
  const Manifest& manifest = artifact->manifest;
  const std::string folder = artifact->path + "/";
  if (manifest.method == Method::patchcore) {
    artifact->bank = read_tensors(*artifact, manifest.bank.file, bank_layout(manifest));
    check_bank(artifact->bank, manifest, folder + manifest.bank.file);
    if (!manifest.bank.index_file.empty()) {
      artifact->index = read_tensors(*artifact, manifest.bank.index_file, index_layout());
    }
  } else {
    artifact->density = read_tensors(*artifact, manifest.density.file, density_layout(manifest));
    check_density(artifact->density, manifest, folder + manifest.density.file);
  }
}

// Those that are not run, too: whoever trusts an artifact trusts all of it.
void check_graphs(const Artifact& artifact) {
  for (const std::string& name : artifact.manifest.graph_files()) {
    const MappedFile& graph = artifact.file(name);
    const kad_status status = kad_graph_check(graph.data(), static_cast<int64_t>(graph.size()));
    if (status == KAD_OK) continue;
    fail(status, "%s/%s: %s", artifact.path.c_str(), name.c_str(), kad_last_error());
  }
}

}  // namespace

Artifact open_artifact(const std::string& path) {
  const Folder folder(path);
  Artifact artifact;
  artifact.path = path;
  const MappedFile text = folder.map(kManifestName, kManifestLimit);
  artifact.manifest = read_manifest({reinterpret_cast<const char*>(text.data()), text.size()},
                                    folder.path_of(kManifestName));
  artifact.thresholds = artifact.manifest.thresholds;
  if (check_listing(folder, artifact.manifest)) {
    const MappedFile set = folder.map(kInspectionName, kInspectionLimit);
    const Inspection found =
        read_inspection({reinterpret_cast<const char*>(set.data()), set.size()},
                        sha256_hex(text.data(), text.size()), artifact.manifest.thresholds,
                        folder.path_of(kInspectionName));
    artifact.thresholds = found.thresholds;
    artifact.calibrated = found.calibrated;
    artifact.rules = found.rules;
  }
  for (const auto& [name, entry] : artifact.manifest.files) {
    artifact.files[name] = map_checked(folder, name, entry);
  }
  check_graphs(artifact);
  read_method(&artifact);
  // Golden tiles are for `kad verify`; here they are checked like everything else, and let go.
  const std::string golden = artifact.manifest.golden.file;
  read_tensors(artifact, golden, golden_layout(artifact.manifest));
  artifact.files.erase(golden);
  return artifact;
}

}  // namespace kad
