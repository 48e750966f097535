#include "runtime/inspection.hpp"

#include "base/guard.hpp"
#include "runtime/fields.hpp"
#include "runtime/json.hpp"

namespace kad {
namespace {

using json::Kind;
using json::Value;

constexpr const char* kInspectionFormat = "kad-inspection";
constexpr const char* kAdvice = "copy the artifact again, or remove this file and calibrate anew";

// Refuse what this reader does not know; gives the version.
int check_inspection_version(Value root, const std::string& name) {
  if (root.kind() != Kind::object) schema_error("inspection", "a JSON object", root);
  std::string format;
  std::string version = "none";
  bool is_integer = false;
  for (const Value::Member& member : root.members()) {
    const Kind kind = member.value.kind();
    if (member.key == "format" && kind == Kind::string) format = member.value.string();
    if (member.key == "version") {
      version = std::string(member.value.text().substr(0, 40));
      is_integer = kind == Kind::integer;
    }
  }
  if (format != kInspectionFormat) {
    fail(KAD_ERROR_ARTIFACT_VERSION, "%s: expected format '%s', got '%.40s': %s", name.c_str(),
         kInspectionFormat, format.c_str(), kAdvice);
  }
  if (!is_integer) throw SchemaError("version: expected an integer, got " + version);
  if (version != "1" && version != "2") {
    fail(KAD_ERROR_ARTIFACT_VERSION,
         "%s: version %s cannot be read by this version of libkad, which reads 1 and 2: upgrade "
         "libkad",
         name.c_str(), version.c_str());
  }
  return version == "1" ? 1 : 2;
}

void check_interval(Fields* fields, Range range) {
  for (const Item& end : fields->list("interval", 2)) read_number(end.value, end.path, range);
}

void read_tau(Fields fields, double* value, double* scale) {
  *value = fields.number("value", kPositiveFloat);
  *scale = fields.number("scale", kPositive);
  check_interval(&fields, kNonNegative);
  fields.end();
}

void check_false_alarms(Fields* calibration, const char* key) {
  if (calibration->is_null(key)) return;
  Fields fields = calibration->object(key);
  fields.number("share", kShare);
  check_interval(&fields, kShare);
  fields.end();
}

void read_calibration(Fields fields, int version, ThresholdSettings* thresholds) {
  fields.text("method");
  fields.text("time");
  read_tau(fields.object("tile"), &thresholds->tile, &thresholds->tile_scale);
  read_tau(fields.object("map"), &thresholds->map, &thresholds->map_scale);
  fields.number("confidence", kFraction);
  for (const char* key : {"good_boards", "defective_boards", "normal_tiles", "defect_tiles"}) {
    fields.integer(key, 0);
  }
  check_false_alarms(&fields, "tile_false_alarms");
  check_false_alarms(&fields, "board_false_alarms");
  if (version >= 2) read_rules(fields.object("rules"));  // under which it was found
  fields.end();
}

void read_entry(const Item& item, Rules* rules) {
  Fields fields(item.value, item.path, false);
  fields.text("time");
  *rules = read_rules(fields.object("rules"));
  fields.end();
}

// Gives the SHA-256 of the manifest that it belongs to.
std::string read_all(Value root, int version, Inspection* found) {
  Fields fields(root, "", false);
  fields.take("format");
  fields.take("version");
  std::string manifest = fields.digest("manifest");
  for (const Item& item : fields.list("calibrations")) {  // the last is in force
    read_calibration(Fields(item.value, item.path, false), version, &found->thresholds);
    found->calibrated = true;
  }
  if (version >= 2) {
    for (const Item& item : fields.list("rules")) read_entry(item, &found->rules);
  }
  fields.end();
  return manifest;
}

}  // namespace

Inspection read_inspection(std::string_view text, const std::string& manifest_sha256,
                           const ThresholdSettings& exported, const std::string& name) {
  Inspection found;
  found.thresholds = exported;
  std::string manifest;
  try {
    const json::Document document(text);
    const int version = check_inspection_version(document.root(), name);
    manifest = read_all(document.root(), version, &found);
  } catch (const json::Error& error) {
    fail(KAD_ERROR_ARTIFACT_MANIFEST, "%s: %s; %s", name.c_str(), error.what(), kAdvice);
  } catch (const SchemaError& error) {
    fail(KAD_ERROR_ARTIFACT_MANIFEST, "%s: %s; %s", name.c_str(), error.what(), kAdvice);
  }
  if (manifest != manifest_sha256) {
    fail(KAD_ERROR_ARTIFACT_HASH,
         "%s: was made for a manifest of SHA-256 %s, and this one's is %s: thresholds of another "
         "artifact do not hold here; %s",
         name.c_str(), manifest.c_str(), manifest_sha256.c_str(), kAdvice);
  }
  return found;
}

}  // namespace kad
