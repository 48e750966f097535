// What each method adds to a manifest.
#include <algorithm>

#include "base/text.hpp"
#include "kad/kad.h"
#include "runtime/manifest_entries.hpp"

namespace kad {
namespace {

void check_grid(const char* key, Size grid, const Manifest& manifest) {
  const int32_t tile = manifest.preprocessing.tile;
  if (grid.height <= tile && grid.width <= tile) return;
  throw SchemaError(std::string(key) + ": expected at most " + std::to_string(tile) + " x " +
                    std::to_string(tile) + ", the tile's px, got " + std::to_string(grid.height) +
                    " x " + std::to_string(grid.width));
}

// ---- PatchCore -------------------------------------------------------------------------------

GraphOutput read_output(const Item& item, bool allow_unknown) {
  Fields fields(item.value, item.path, allow_unknown);
  GraphOutput output;
  output.name = fields.text("name");
  output.channels = fields.pixels("channels");
  output.height = fields.pixels("height");
  output.width = fields.pixels("width");
  fields.end();
  return output;
}

void read_base_map_network(Fields network, Manifest* manifest) {
  read_network(&network, manifest);
  const std::vector<Item> layers = network.list("layers");
  for (const Item& layer : layers) read_text(layer.value, layer.path);
  for (const Item& item : network.list("outputs")) {
    manifest->patchcore.outputs.push_back(read_output(item, network.allows_unknown()));
  }
  network.end();
  const size_t n_outputs = manifest->patchcore.outputs.size();
  if (n_outputs == 0 || n_outputs != layers.size()) {
    throw SchemaError("network.outputs: expected one for each of " + std::to_string(layers.size()) +
                      " layers, got " + std::to_string(n_outputs));
  }
}

void read_settings(Fields fields, int minor, PatchCoreSettings* settings) {
  settings->resampling =
      fields.choice("resampling", {"bilinear", "adaptive-average", "aligned-bilinear"});
  fields.choice("pooling", {"same-bilinear", "valid-adaptive"});
  settings->grid = fields.size("grid");
  settings->reweighting = fields.choice("reweighting", {"none", "thesis", "paper"});
  settings->n_neighbors = fields.integer("n_neighbors", 0, kMaxNeighbors);
  if (minor >= 3) read_mode(&fields, settings);
  fields.end();
}

void check_coreset(Fields coreset) {
  coreset.text("method");
  coreset.number("fraction", kFraction);
  coreset.count_or_null("max_rows");
  coreset.number_or_null("eps", kFraction);
  coreset.count_or_null("projected_dims");
  coreset.choice("points", {"float32", "float16"});
  coreset.integer("candidates", 1);
  coreset.integer("trimmed", 0);
  coreset.integer("seed", 0);
  coreset.number("radius", kNonNegative);
  coreset.number_or_null("separation", kNonNegative);
  coreset.number_or_null("ratio", kNonNegative);
  coreset.end();
}

// What was added later, and that something was there before.
void check_extensions(Fields* fields, BankSettings* bank) {
  int64_t before = bank->rows;
  for (const Item& item : fields->list("extended")) {
    Fields extension(item.value, item.path, fields->allows_unknown());
    extension.digest("parent");
    before -= std::min(before, extension.integer("rows", 1));
    extension.integer("images", 1);
    extension.integer("candidates", 1);
    extension.number("radius", kNonNegative);
    extension.end();
    bank->extended = true;
  }
  if (before < 1) {
    throw SchemaError("bank.extended: expected fewer rows in all than bank.rows, " +
                      std::to_string(bank->rows));
  }
}

BankSettings read_bank(Fields fields, int minor) {
  BankSettings bank;
  bank.file = fields.file_name("file");
  const bool stores = minor >= 1 && !fields.is_null("index_file");
  if (stores) bank.index_file = fields.file_name("index_file");
  bank.rows = fields.integer("rows", 1);
  bank.dims = fields.integer("dims", 1);
  for (const Item& image : fields.list("images")) {
    bank.images.push_back(read_text(image.value, image.path));
  }
  check_coreset(fields.object("coreset"));
  if (minor >= 2) check_extensions(&fields, &bank);
  fields.end();
  if (bank.images.empty()) throw SchemaError("bank.images: expected at least one name");
  return bank;
}

void check_bank(const Manifest& manifest) {
  int64_t channels = 0;
  for (const GraphOutput& output : manifest.patchcore.outputs) channels += output.channels;
  if (manifest.bank.dims != channels) {
    throw SchemaError("bank.dims: expected " + std::to_string(channels) +
                      ", the sum of the outputs' channels, got " +
                      std::to_string(manifest.bank.dims));
  }
  const int64_t available = std::min(kMaxNeighbors, manifest.bank.rows - 1);
  const int64_t used = manifest.patchcore.n_neighbors;
  if (manifest.patchcore.reweighting == KAD_REWEIGHT_NONE || (used >= 1 && used <= available)) {
    return;
  }
  throw SchemaError("patchcore.n_neighbors: expected 1 to " + std::to_string(available) +
                    " for this re-weighting with " + std::to_string(manifest.bank.rows) +
                    " rows, got " + std::to_string(used));
}

// ---- CutPaste --------------------------------------------------------------------------------

CutPasteSettings read_settings(Fields fields) {
  CutPasteSettings settings;
  settings.classes = fields.integer("classes", 2, 3);
  settings.embedding_dims = fields.pixels("embedding_dims");
  const int64_t anomalous = fields.integer("anomalous_class", 0, 2);
  settings.grad_cam = fields.choice("map", {"grad-cam", "tile-score"}) == 0;
  const bool explains = !fields.is_null("explain_file");
  if (explains) settings.explain_file = fields.file_name("explain_file");
  settings.map_grid = fields.size("map_grid");
  fields.end();
  if (anomalous >= settings.classes) {
    throw SchemaError("cutpaste.anomalous_class: expected 0 to " +
                      std::to_string(settings.classes - 1) + ", got " + std::to_string(anomalous));
  }
  if (explains != settings.grad_cam) {
    throw SchemaError(settings.grad_cam
                          ? "cutpaste.explain_file: expected a file name with map 'grad-cam'"
                          : "cutpaste.explain_file: expected null with map 'tile-score'");
  }
  if (!settings.grad_cam && (settings.map_grid.height != 1 || settings.map_grid.width != 1)) {
    throw SchemaError("cutpaste.map_grid: expected [1, 1] with map 'tile-score'");
  }
  return settings;
}

DensitySettings read_density(Fields fields) {
  DensitySettings density;
  density.kind = fields.choice("kind", {"gaussian", "kernel"});
  density.file = fields.file_name("file");
  density.samples = fields.integer("samples", 1);
  const bool gaussian = density.kind == KAD_DENSITY_GAUSSIAN;
  const std::optional<double> shrinkage = fields.number_or_null("shrinkage", kShare);
  const std::optional<double> bandwidth = fields.number_or_null("bandwidth", kPositiveFloat);
  fields.end();
  if (shrinkage.has_value() != gaussian || bandwidth.has_value() == gaussian) {
    throw SchemaError(gaussian ? "density: expected a shrinkage and no bandwidth for 'gaussian'"
                               : "density: expected a bandwidth and no shrinkage for 'kernel'");
  }
  density.bandwidth = bandwidth.value_or(0.0);
  return density;
}

void check_cutpaste_training(Fields fields) {
  fields.integer("epochs", 1);
  fields.integer("best_epoch", 0);
  fields.integer("steps", 1);
  fields.integer("batch", 1);
  fields.text("optimizer");
  fields.number("learning_rate", kPositive);
  fields.integer("seed", 0);
  for (const auto& [key, item] : fields.mapping("augmentation")) {
    check_free(item, "cutpaste_training.augmentation." + shortened(key));
  }
  fields.number_or_null("validation_accuracy", kShare);
  fields.digest("checkpoint_sha256");
  fields.end();
}

void read_tolerance(Fields golden, Manifest* manifest, const std::vector<const char*>& keys) {
  read_golden(&golden, manifest);
  Fields tolerance = golden.object("tolerance");
  for (const char* key : keys) tolerance.number(key, kPositive);
  tolerance.end();
  golden.end();
}

}  // namespace

void read_patchcore(Fields* fields, Manifest* manifest) {
  read_base_map_network(fields->object("network"), manifest);
  read_settings(fields->object("patchcore"), manifest->minor, &manifest->patchcore);
  manifest->bank = read_bank(fields->object("bank"), manifest->minor);
  read_tolerance(fields->object("golden"), manifest, {"base_map", "score"});
  check_bank(*manifest);
  check_grid("patchcore.grid", manifest->patchcore.grid, *manifest);
  check_mode(*manifest);
}

void read_cutpaste(Fields* fields, Manifest* manifest) {
  Fields network = fields->object("network");
  read_network(&network, manifest);
  network.end();
  manifest->cutpaste = read_settings(fields->object("cutpaste"));
  manifest->density = read_density(fields->object("density"));
  check_cutpaste_training(fields->object("cutpaste_training"));
  read_tolerance(fields->object("golden"), manifest, {"network", "cam", "score"});
  check_grid("cutpaste.map_grid", manifest->cutpaste.map_grid, *manifest);
}

}  // namespace kad
