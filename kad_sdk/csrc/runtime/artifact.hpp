// An opened artifact, all of it checked.
#pragma once

#include <map>
#include <string>

#include "runtime/folder.hpp"
#include "runtime/manifest.hpp"
#include "runtime/rules.hpp"
#include "runtime/tensors.hpp"

namespace kad {

struct Artifact {
  std::string path;
  Manifest manifest;
  ThresholdSettings thresholds;  // in force: the manifest's, or those set on site since
  bool calibrated = false;       // they were set on site
  Rules rules;                   // set on site
  std::map<std::string, MappedFile> files;
  Tensors bank;     // of PatchCore: bank, neighbors, source_image, source_xy
  Tensors index;    // of PatchCore, where one is stored: index
  Tensors density;  // of CutPaste: mean, cholesky; or samples

  const MappedFile& file(const std::string& name) const { return files.at(name); }
};

/// Open and check an artifact. Raises KAD_ERROR_ARTIFACT_*; the text names the file and the check.
Artifact open_artifact(const std::string& path);

}  // namespace kad
