#include "runtime/manifest.hpp"

#include <set>

#include "base/guard.hpp"
#include "base/text.hpp"
#include "runtime/inspection.hpp"
#include "runtime/json.hpp"
#include "runtime/manifest_entries.hpp"

namespace kad {

using json::Kind;
using json::Value;

namespace {

constexpr const char* kFormat = "kad-artifact";
constexpr int64_t kMajor = 1;
constexpr int kMinor = 3;

bool is_short_number(const std::string& text) {
  return !text.empty() && text.size() <= 4 &&
         text.find_first_not_of("0123456789") == std::string::npos;
}

std::string string_of(const std::vector<Value::Member>& members, const char* key) {
  for (const Value::Member& member : members) {
    if (member.key == key && member.value.kind() == Kind::string) return member.value.string();
  }
  return "";
}

// Refuse what this reader does not know; the minor version.
int check_version(Value root, const std::string& name) {
  if (root.kind() != Kind::object) schema_error("manifest", "a JSON object", root);
  const auto members = root.members();
  const std::string format = string_of(members, "format");
  if (format != kFormat) {
    fail(KAD_ERROR_ARTIFACT_VERSION,
         "%s: expected format '%s', got '%s': this is not an artifact of kad-export", name.c_str(),
         kFormat, shortened(format, 40).c_str());
  }
  const std::string version = string_of(members, "format_version");
  const size_t dot = version.find('.');
  const std::string major_text = version.substr(0, dot);
  const std::string minor_text = dot == std::string::npos ? "" : version.substr(dot + 1);
  if (!is_short_number(major_text) || !is_short_number(minor_text)) {
    throw SchemaError("format_version: expected 'major.minor', got '" + shortened(version, 40) +
                      "'");
  }
  const int major = std::stoi(major_text);
  if (major != kMajor) {
    fail(KAD_ERROR_ARTIFACT_VERSION,
         "%s: format version %s cannot be read by this version of libkad, which reads %lld.x: %s",
         name.c_str(), version.c_str(), static_cast<long long>(kMajor),
         major > kMajor ? "upgrade libkad" : "export the artifact again");
  }
  return std::stoi(minor_text);
}

std::map<std::string, FileEntry> read_files(Fields* manifest) {
  std::map<std::string, FileEntry> files;
  for (const auto& [name, item] : manifest->mapping("files")) {
    check_file_name(name, "files: each key");
    Fields fields(item, "files." + name, manifest->allows_unknown());
    FileEntry entry;
    entry.size = static_cast<uint64_t>(fields.integer("size", 0));
    entry.sha256 = fields.digest("sha256");
    fields.end();
    files[name] = entry;
  }
  return files;
}

// Every file that an entry names is listed, and no two entries name the same.
void check_named_files(const Manifest& manifest) {
  if (manifest.files.count(kInspectionName) > 0) {
    throw SchemaError("files: inspection.json is set on site, and no manifest lists it");
  }
  std::vector<std::string> named = manifest.graph_files();
  named.push_back(manifest.golden.file);
  if (manifest.method == Method::patchcore) named.push_back(manifest.bank.file);
  if (!manifest.bank.index_file.empty()) named.push_back(manifest.bank.index_file);
  if (manifest.method == Method::cutpaste) named.push_back(manifest.density.file);
  std::set<std::string> different = {"manifest.json"};
  for (const std::string& name : named) {
    if (manifest.files.count(name) == 0) throw SchemaError("files: " + name + " is not listed");
    different.insert(name);
  }
  if (different.size() != named.size() + 1) {
    throw SchemaError("files: expected a different name for each file");
  }
}

Manifest read(Value root, int minor) {
  Fields fields(root, "", minor > kMinor);
  Manifest manifest;
  manifest.minor = minor;
  fields.take("format");
  fields.take("format_version");
  manifest.method = static_cast<Method>(fields.choice("method", {"patchcore", "cutpaste"}));
  for (const auto& [key, item] : fields.mapping("created_by")) {
    read_text(item, "created_by." + shortened(key));
  }
  manifest.preprocessing = read_preprocessing(fields.object("preprocessing"));
  manifest.map = read_map(fields.object("map"));
  manifest.thresholds = read_thresholds(fields.object("thresholds"));
  check_training(fields.object("training"));
  for (const auto& [key, item] : fields.mapping("verification")) {
    check_free(item, "verification." + shortened(key));
  }
  manifest.files = read_files(&fields);
  if (manifest.method == Method::patchcore) {
    read_patchcore(&fields, &manifest);
  } else {
    read_cutpaste(&fields, &manifest);
  }
  fields.end();
  check_named_files(manifest);
  return manifest;
}

}  // namespace

std::vector<std::string> Manifest::graph_files() const {
  if (cutpaste.explain_file.empty()) return {network_file};
  return {network_file, cutpaste.explain_file};
}

Graph Manifest::graph(bool explain) const {
  Graph graph = {network_file, network_input, preprocessing.tile, patchcore.windows.has_value(),
                 patchcore.outputs};
  if (method == Method::patchcore) return graph;
  graph.outputs = {{"logits", cutpaste.classes, 1, 1, 2},
                   {"embedding", cutpaste.embedding_dims, 1, 1, 2}};
  if (explain) {
    graph.file = cutpaste.explain_file;
    graph.outputs.push_back({"cam", 1, cutpaste.map_grid.height, cutpaste.map_grid.width, 4});
  }
  return graph;
}

Manifest read_manifest(std::string_view text, const std::string& name) {
  try {
    const json::Document document(text);
    Manifest manifest = read(document.root(), check_version(document.root(), name));
    manifest.text = std::string(text);
    return manifest;
  } catch (const json::Error& error) {
    fail(KAD_ERROR_ARTIFACT_MANIFEST, "%s: %s; copy the artifact again", name.c_str(),
         error.what());
  } catch (const SchemaError& error) {
    fail(KAD_ERROR_ARTIFACT_MANIFEST, "%s: %s: the file was changed; copy the artifact again",
         name.c_str(), error.what());
  }
}

}  // namespace kad
