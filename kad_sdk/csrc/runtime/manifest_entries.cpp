#include "runtime/manifest_entries.hpp"

#include <cmath>
#include <iterator>

#include "base/text.hpp"
#include "image/image.hpp"

namespace kad {

using json::Kind;
using json::Value;

namespace {

constexpr int kFreeDepth = 8;
constexpr const char* kPrecisions[] = {"fp32", "fp16", "int8"};
constexpr Range kStrength = {0.0, kLargestFloat};  // of denoising: OpenCV takes float32
constexpr Range kFactor = {0.0, 8.0, true};

void check_weights(Fields weights) {
  weights.choice("source", {"imagenet", "file", "random"});
  weights.text("name");
  if (!weights.is_null("sha256")) weights.digest("sha256");
  weights.end();
}

void check_resize(Size size, int32_t tile, Value value) {
  if (size.height < tile || size.width < tile) {
    schema_error("preprocessing.resize",
                 "sides of at least a tile, " + std::to_string(tile) + " px", value);
  }
  if (int64_t{size.height} * size.width > kMaxFramePixels) {
    schema_error("preprocessing.resize",
                 "at most " + std::to_string(kMaxFramePixels) + " px in all", value);
  }
}

void read_resize(Fields* fields, PreprocessingSettings* settings) {
  const Value value = fields->take("resize");
  if (value.kind() == Kind::null) return;
  if (value.kind() == Kind::array) {
    settings->resize = Resize::size;
    settings->resize_size = fields->size("resize");
    check_resize(settings->resize_size, settings->tile, value);
  } else {
    settings->resize = Resize::factor;
    settings->resize_factor = fields->number("resize", kFactor);
  }
}

// Pixels are normalised to (value - mean) / std, value in 0..1: a float32 has to hold it.
void read_normalisation(Fields* fields, PreprocessingSettings* settings) {
  const std::vector<Item> means = fields->list("mean", 3), stds = fields->list("std", 3);
  for (size_t i = 0; i < 3; ++i) {
    const double mean = read_number(means[i].value, means[i].path, kFloat);
    const double std = read_number(stds[i].value, stds[i].path, kPositiveFloat);
    if ((1.0 + std::abs(mean)) / std > double{kLargestFloat}) {
      schema_error(stds[i].path, "a number for which (value - mean) / std fits float32",
                   stds[i].value);
    }
    settings->mean[i] = static_cast<float>(mean);
    settings->std[i] = static_cast<float>(std);
  }
}

std::optional<DenoiseSettings> read_denoise(Fields* preprocessing) {
  if (preprocessing->is_null("denoise")) return std::nullopt;
  Fields fields = preprocessing->object("denoise");
  DenoiseSettings settings;
  settings.h = fields.number("h", kStrength);
  settings.h_color = fields.number("h_color", kStrength);
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
    for (const auto& [key, item] : value.members()) {
      check_free(item, path + "." + shortened(key, 40), depth + 1);
    }
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
  manifest->precision =
      kPrecisions[network->choice("precision", {std::begin(kPrecisions), std::end(kPrecisions)})];
}

PreprocessingSettings read_preprocessing(Fields fields) {
  PreprocessingSettings settings;
  settings.tile = fields.pixels("tile", kMaxTile);
  settings.stride = fields.pixels("stride");
  fields.pixels("train_stride");
  read_resize(&fields, &settings);
  read_normalisation(&fields, &settings);
  fields.choice("normalisation", {"dataset", "imagenet", "white", "white-with-edges"});
  settings.denoise = read_denoise(&fields);
  fields.end();
  return settings;
}

MapSettings read_map(Fields fields) {
  MapSettings settings;
  settings.sigma = fields.number("sigma", kPositiveFloat);
  settings.radius = static_cast<int32_t>(fields.integer("radius", 0, 1024));
  fields.end();
  return settings;
}

ThresholdSettings read_thresholds(Fields fields) {
  ThresholdSettings settings;
  settings.by_map = fields.choice("board", {"map-peak", "largest-tile"}) == 0;
  settings.tile = fields.number("tile", kPositiveFloat);
  settings.tile_scale = fields.number("tile_scale", kPositive);
  settings.map = fields.number("map", kPositiveFloat);
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
