// The manifest of an artifact: what scoring needs of it. All of it is checked, by the rules of
// kad_sdk/manifest.py; what only people read is checked and dropped.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/fields.hpp"

namespace kad {

constexpr uint64_t kManifestLimit = 16 << 20;  // bytes
constexpr int64_t kMaxFramePixels = 1 << 28;   // of a board that `preprocessing.resize` makes
constexpr int64_t kMaxNeighbors = 8;           // columns of the bank's table of neighbours

enum class Method { patchcore, cutpaste };

struct FileEntry {
  uint64_t size = 0;
  std::string sha256;
};

struct GraphOutput {
  std::string name;
  int64_t channels = 0;
  int64_t height = 1;
  int64_t width = 1;
  int32_t rank = 4;  // of the tensor in the graph: 2 for (B, channels), 4 for all four

  int64_t values() const { return channels * height * width; }
};

/// What an ONNX graph must take and give.
struct Graph {
  std::string file;
  std::string input;
  int32_t tile = 0;      // the input is (B, 3, tile, tile)
  bool dynamic = false;  // unless height and width are dynamic, here and in every output
  std::vector<GraphOutput> outputs;
};

enum class Resize { none, size, factor };

struct DenoiseSettings {
  double h = 0.0;
  double h_color = 0.0;
  int32_t template_window = 0;  // px
  int32_t search_window = 0;    // px
};

struct PreprocessingSettings {
  int32_t tile = 0;    // px
  int32_t stride = 0;  // px
  Resize resize = Resize::none;
  Size resize_size;  // px
  double resize_factor = 0.0;
  float mean[3] = {};  // RGB, in units of full scale
  float std[3] = {};
  std::optional<DenoiseSettings> denoise;
};

struct MapSettings {
  double sigma = 0.0;  // px
  int32_t radius = 0;  // px
};

struct ThresholdSettings {
  bool by_map = false;  // whether the map's peak decides a board, or the largest tile score
  double tile = 0.0;
  double tile_scale = 0.0;
  double map = 0.0;
  double map_scale = 0.0;
  int64_t min_region_area_px = 0;
};

/// Lengths in px.
struct WindowSettings {
  int32_t window = 0;  // side of the largest square window without its halo
  int32_t halo = 0;
  int32_t align = 0;  // a cell of the coarsest layer
  int32_t patch = 0;  // a cell of the finest layer
  int32_t label_margin = 0;
};

struct PatchCoreSettings {
  int32_t resampling = 0;  // KAD_RESAMPLE_*
  Size grid;
  int32_t reweighting = 0;  // KAD_REWEIGHT_*
  int64_t n_neighbors = 0;
  std::vector<GraphOutput> outputs;       // their sizes for a tile
  std::optional<WindowSettings> windows;  // of an artifact that scores boards in windows
};

struct BankSettings {
  std::string file;
  std::string index_file;  // empty where no index is stored
  int64_t rows = 0;
  int64_t dims = 0;
  std::vector<std::string> images;
  bool extended = false;  // rows were added since it was fitted
};

struct CutPasteSettings {
  int64_t classes = 0;
  int64_t embedding_dims = 0;
  bool grad_cam = false;     // or the tile's score as its map
  std::string explain_file;  // empty without Grad-CAM
  Size map_grid;
};

struct DensitySettings {
  std::string file;
  int32_t kind = 0;  // KAD_DENSITY_*
  int64_t samples = 0;
  double bandwidth = 0.0;  // of the kernel density
};

struct GoldenSettings {
  std::string file;
  int64_t count = 0;
};

struct Manifest {
  std::string text;  // the file itself
  int minor = 0;     // of the format's version
  Method method = Method::patchcore;
  std::string network_file;
  std::string network_input;
  const char* precision = "";  // what the graph computes in
  PreprocessingSettings preprocessing;
  MapSettings map;
  ThresholdSettings thresholds;
  GoldenSettings golden;
  std::map<std::string, FileEntry> files;

  PatchCoreSettings patchcore;  // these two of PatchCore
  BankSettings bank;
  CutPasteSettings cutpaste;  // these two of CutPaste
  DensitySettings density;

  /// Names of the ONNX graphs' files.
  std::vector<std::string> graph_files() const;
  /// What the graph takes and gives; `explain`: CutPaste's graph with Grad-CAM.
  Graph graph(bool explain) const;
};

/// Read and check a manifest; `name` is what errors call it. Raises KAD_ERROR_ARTIFACT_VERSION or
/// KAD_ERROR_ARTIFACT_MANIFEST; the text names the key.
Manifest read_manifest(std::string_view text, const std::string& name);

}  // namespace kad
