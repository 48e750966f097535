// How an artifact's boards go through the network: in tiles, or in windows.
#include <algorithm>
#include <string>

#include "kad/kad.h"
#include "runtime/manifest_entries.hpp"

namespace kad {
namespace {

constexpr int64_t kMaxLength = 1 << 15;

WindowSettings read_windows(Fields fields) {
  WindowSettings windows;
  windows.window = fields.pixels("window_px");
  windows.halo = static_cast<int32_t>(fields.integer("halo_px", 0, kMaxLength));
  windows.align = fields.pixels("align_px");
  windows.patch = fields.pixels("patch_px");
  windows.label_margin = static_cast<int32_t>(fields.integer("label_margin_px", 0, kMaxLength));
  fields.end();
  return windows;
}

void check_multiple(const char* key, int32_t value, int32_t align) {
  if (value % align == 0) return;
  throw SchemaError(std::string(key) + ": expected a multiple of patchcore.windows.align_px, " +
                    std::to_string(align) + " px, got " + std::to_string(value));
}

void check_sizes(const WindowSettings& windows, int32_t tile) {
  const int32_t steps = windows.align / windows.patch;
  if (windows.align % windows.patch != 0 || (steps & (steps - 1)) != 0) {
    throw SchemaError("patchcore.windows.align_px: expected 1, 2, 4 ... times " +
                      std::to_string(windows.patch) + " px, got " + std::to_string(windows.align));
  }
  check_multiple("patchcore.windows.window_px", windows.window, windows.align);
  check_multiple("patchcore.windows.halo_px", windows.halo, windows.align);
  check_multiple("preprocessing.tile", tile, windows.align);
  const int64_t least = 2 * int64_t{windows.label_margin} + 4 * int64_t{windows.patch};
  if (tile < least) {
    throw SchemaError("preprocessing.tile: expected at least 2 label_margin_px + 4 patch_px, " +
                      std::to_string(least) + " px, got " + std::to_string(tile));
  }
}

// One of the outputs has cells of `cell` px.
bool has_cells(const std::vector<GraphOutput>& outputs, int64_t side) {
  return std::any_of(outputs.begin(), outputs.end(), [&](const GraphOutput& output) {
    return output.height == side && output.width == side;
  });
}

void check_layers(const PatchCoreSettings& settings, const WindowSettings& windows, int32_t tile) {
  const int32_t side = tile / windows.patch;
  if (settings.grid.height != side || settings.grid.width != side) {
    throw SchemaError("patchcore.grid: expected [" + std::to_string(side) + ", " +
                      std::to_string(side) + "], the patches of a tile, got [" +
                      std::to_string(settings.grid.height) + ", " +
                      std::to_string(settings.grid.width) + "]");
  }
  bool good =
      has_cells(settings.outputs, side) && has_cells(settings.outputs, tile / windows.align);
  for (const GraphOutput& output : settings.outputs) {
    bool known = false;
    for (int64_t cell = windows.patch; cell <= windows.align; cell *= 2) {
      known = known || (output.height == tile / cell && output.width == tile / cell);
    }
    good = good && known;
  }
  if (good) return;
  throw SchemaError("network.outputs: expected one cell for every " +
                    std::to_string(windows.patch) + " to " + std::to_string(windows.align) +
                    " px of a tile of " + std::to_string(tile) + " px");
}

}  // namespace

void read_mode(Fields* patchcore, PatchCoreSettings* settings) {
  const bool in_windows = patchcore->choice("mode", {"tiles", "windows"}) == 1;
  if (patchcore->is_null("windows") == in_windows) {
    throw SchemaError(in_windows ? "patchcore.windows: expected an object with mode 'windows'"
                                 : "patchcore.windows: expected null with mode 'tiles'");
  }
  if (in_windows) settings->windows = read_windows(patchcore->object("windows"));
}

void check_mode(const Manifest& manifest) {
  const PatchCoreSettings& settings = manifest.patchcore;
  const bool aligned = settings.resampling == KAD_RESAMPLE_ALIGNED_BILINEAR;
  if (aligned != settings.windows.has_value()) {
    throw SchemaError(aligned ? "patchcore.resampling: expected not 'aligned-bilinear' with mode "
                                "'tiles'"
                              : "patchcore.resampling: expected 'aligned-bilinear' with mode "
                                "'windows'");
  }
  if (!settings.windows) return;
  check_sizes(*settings.windows, manifest.preprocessing.tile);
  check_layers(settings, *settings.windows, manifest.preprocessing.tile);
}

}  // namespace kad
