#include "runtime/manifest_entries.hpp"

#include <cmath>

namespace kad {

using json::Kind;
using json::Value;

namespace {

constexpr int kFreeDepth = 8;
constexpr Range kFactor = {0.0, 8.0, true};

void check_weights(Fields weights) {
  weights.choice("source", {"imagenet", "file", "random"});
  weights.text("name");
  if (!weights.is_null("sha256")) weights.digest("sha256");
  weights.end();
}

void read_resize(Fields* fields, PreprocessingSettings* settings) {
  const Value value = fields->take("resize");
  if (value.kind() == Kind::null) return;
  if (value.kind() == Kind::array) {
    settings->resize = Resize::size;
    settings->resize_size = fields->size("resize");
  } else {
    settings->resize = Resize::factor;
    settings->resize_factor = fields->number("resize", kFactor);
  }
}

void read_triple(Fields* fields, const char* key, Range range, float out[3]) {
  const std::vector<Item> items = fields->list(key, 3);
  for (size_t i = 0; i < 3; ++i) {
    out[i] = static_cast<float>(read_number(items[i].value, items[i].path, range));
  }
}

std::optional<DenoiseSettings> read_denoise(Fields* preprocessing) {
  if (preprocessing->is_null("denoise")) return std::nullopt;
  Fields fields = preprocessing->object("denoise");
  DenoiseSettings settings;
  settings.h = fields.number("h", kNonNegative);
  settings.h_color = fields.number("h_color", kNonNegative);
  settings.template_window = fields.pixels("template_window");
  settings.search_window = fields.pixels("search_window");
  fields.end();
  if (settings.template_window % 2 == 0 || settings.search_window % 2 == 0) {
    throw SchemaError("preprocessing.denoise: expected odd windows, got " +
                      std::to_string(settings.template_window) + " and " +
                      std::to_string(settings.search_window));
  }
  return settings;
}

}  // namespace

void check_free(Value value, const std::string& path, int depth) {
  if (depth > kFreeDepth) throw SchemaError(path + ": nested too deeply");
  if (value.kind() == Kind::object) {
    for (const auto& [key, item] : value.members()) check_free(item, path + "." + key, depth + 1);
  } else if (value.kind() == Kind::array) {
    for (const Value item : value.items()) check_free(item, path + "[]", depth + 1);
  } else if (value.kind() == Kind::real && !std::isfinite(value.number())) {
    schema_error(path, "a finite number", value);
  }
}

void read_network(Fields* network, Manifest* manifest) {
  manifest->network_file = network->file_name("file");
  manifest->network_input = network->text("input");
  network->text("backbone");
  check_weights(network->object("weights"));
  network->integer("opset", 1);
  network->text("precision");
}

PreprocessingSettings read_preprocessing(Fields fields) {
  PreprocessingSettings settings;
  settings.tile = fields.pixels("tile");
  settings.stride = fields.pixels("stride");
  fields.pixels("train_stride");
  read_resize(&fields, &settings);
  read_triple(&fields, "mean", {}, settings.mean);
  read_triple(&fields, "std", kPositive, settings.std);
  fields.choice("normalisation", {"dataset", "imagenet", "white", "white-with-edges"});
  settings.denoise = read_denoise(&fields);
  fields.end();
  return settings;
}

MapSettings read_map(Fields fields) {
  MapSettings settings;
  settings.sigma = fields.number("sigma", kPositive);
  settings.radius = static_cast<int32_t>(fields.integer("radius", 0, 1024));
  fields.end();
  return settings;
}

ThresholdSettings read_thresholds(Fields fields) {
  ThresholdSettings settings;
  settings.by_map = fields.choice("board", {"map-peak", "largest-tile"}) == 0;
  settings.tile = fields.number("tile", kPositive);
  settings.tile_scale = fields.number("tile_scale", kPositive);
  settings.map = fields.number("map", kPositive);
  settings.map_scale = fields.number("map_scale", kPositive);
  fields.text("method");
  fields.integer("samples", 0);
  settings.min_region_area_px = fields.integer("min_region_area_px", 1);
  fields.end();
  return settings;
}

void read_golden(Fields* golden, Manifest* manifest) {
  manifest->golden.file = golden->file_name("file");
  manifest->golden.count = golden->integer("count", 1);
}

void check_training(Fields fields) {
  fields.choice("layout", {"mvtec", "boards", "folder"});
  fields.integer("images", 1);
  fields.integer("tiles", 1);
  fields.digest("fingerprint");
  fields.end();
}

}  // namespace kad
