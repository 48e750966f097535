#include "runtime/detector.hpp"

#include <sched.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

#include "runtime/stage.hpp"

namespace kad {
namespace {

constexpr int32_t kDefaultBatch = 16;

/// Processors that this process may use. The system refuses a set that is smaller than its own, and
/// one cpu_set_t holds 1024.
int32_t available_processors() {
  constexpr size_t kMostSets = 1 << 10;
  for (size_t n = 1; n <= kMostSets; n *= 2) {
    std::vector<cpu_set_t> sets(n);
    const size_t bytes = n * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, sets.data()) == 0) return CPU_COUNT_S(bytes, sets.data());
    if (errno != EINVAL) break;
  }
  return 1;
}

double threshold_of(const double* given, double own, const char* name) {
  if (given == nullptr) return own;
  if (*given >= kPositiveFloat.low && *given <= kPositiveFloat.high) return *given;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "%s: expected a float32 number above 0, or NULL for the artifact's own, got %g", name,
       *given);
}

// A longer one cannot be opened; the text of that failure would hold nothing else.
void check_path(const char* path) {
  check_pointer(path, "path");
  const size_t length = std::strlen(path);
  if (length < PATH_MAX) return;
  fail(KAD_ERROR_ARTIFACT_NOT_FOUND, "%.80s...: expected a path shorter than %d bytes, got %zu",
       path, PATH_MAX, length);
}

void check_provider(const kad_detector_options& options) {
  if (options.provider < KAD_PROVIDER_CPU || options.provider > KAD_PROVIDER_CALLER) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "provider: expected one of KAD_PROVIDER_* (0 to 3), got %d",
         options.provider);
  }
  const bool caller = options.provider == KAD_PROVIDER_CALLER;
  if (caller != (options.network != nullptr)) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "provider: KAD_PROVIDER_CALLER and kad_detector_options.network belong together, got "
         "provider %d and %s network",
         options.provider, options.network == nullptr ? "no" : "a");
  }
  const bool gpu =
      options.provider == KAD_PROVIDER_CUDA || options.provider == KAD_PROVIDER_TENSORRT;
  if (options.device_id < 0 || (!gpu && options.device_id != 0)) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "device_id: %d names a GPU, and the provider is %d; use KAD_PROVIDER_CUDA or "
         "KAD_PROVIDER_TENSORRT, or leave it 0",
         options.device_id, options.provider);
  }
}

kad_detector_options check_options(const kad_detector_options* given) {
  kad_detector_options options = {};
  if (given != nullptr) {
    options = read_struct(given, KAD_FIRST_SIZE(kad_detector_options, log_context),
                          "kad_detector_options");
  }
  check_provider(options);
  if (options.n_threads < 0 || options.batch < 0) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "n_threads and batch: expected at least 1, or 0 for the default, got %d and %d",
         options.n_threads, options.batch);
  }
  if (options.scores_only != 0 && options.scores_only != 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "scores_only must be 0 or 1, got %d", options.scores_only);
  }
  if (options.n_threads == 0) options.n_threads = available_processors();
  if (options.batch == 0) options.batch = kDefaultBatch;
  return options;
}

// What the artifact asks for and these options cannot give.
void check_artifact(const Artifact& artifact, const kad_detector_options& options) {
  const Manifest& manifest = artifact.manifest;
  if (manifest.preprocessing.denoise && options.denoise == nullptr) {
    fail(KAD_ERROR_ARTIFACT_UNSUPPORTED,
         "%s: preprocessing.denoise: boards are to be denoised with OpenCV's "
         "fastNlMeansDenoisingColored, which libkad has not; give a function that calls it in "
         "kad_detector_options.denoise, or export without --denoise",
         artifact.path.c_str());
  }
  if (manifest.patchcore.windows && options.provider == KAD_PROVIDER_TENSORRT) {
    fail(KAD_ERROR_PROVIDER,
         "%s: TensorRT builds its engine for one size, and this artifact's windows have several; "
         "use KAD_PROVIDER_CPU or KAD_PROVIDER_CUDA, or export with --mode tiles",
         artifact.path.c_str());
  }
  if (options.scores_only != 0 && artifact.thresholds.by_map) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "scores_only: %s decides boards by the peak of their map, which is not made then; open it "
         "with maps, or export it with --board-score largest-tile",
         artifact.path.c_str());
  }
}

std::string text_of(const char* text) { return text == nullptr ? "" : text; }

NetworkOptions network_options(const Detector& detector) {
  const kad_detector_options& options = detector.options;
  NetworkOptions network;
  network.provider = options.provider;
  network.device_id = options.device_id;
  network.n_threads = options.n_threads;
  network.max_batch = options.batch;
  network.library = text_of(options.onnxruntime);
  network.cache_folder = text_of(options.cache_folder);
  network.graph_sha256 = detector.manifest().files.at(detector.graph.file).sha256;
  network.precision = detector.manifest().precision;
  network.log = {options.log, options.log_context};
  return network;
}

void open_network(Detector* detector) {
  const Manifest& manifest = detector->manifest();
  const bool explains = !manifest.cutpaste.explain_file.empty() && detector->makes_maps();
  detector->graph = manifest.graph(explains);
  detector->network_path = detector->artifact.path + "/" + detector->graph.file;
  const MappedFile& graph = detector->artifact.file(detector->graph.file);
  const kad_detector_options& options = detector->options;
  detector->network =
      options.network != nullptr
          ? make_caller_network(options.network, options.network_context, detector->graph)
          : open_onnx_network(graph.data(), graph.size(), detector->graph,
                              network_options(*detector));
  detector->version = detector->network->version();
  // The runtime has its own copy, and nothing else needs the graphs.
  detector->artifact.files.erase(manifest.network_file);
  detector->artifact.files.erase(manifest.cutpaste.explain_file);
}

}  // namespace

std::shared_ptr<const Detector> open_detector(const std::string& path,
                                              const kad_detector_options& options) {
  const auto detector = std::make_shared<Detector>();
  const Log log = {options.log, options.log_context};
  detector->artifact = open_artifact(path);
  log.tell(KAD_LOG_INFO, "%s: all of the artifact is as its manifest says", path.c_str());
  if (detector->manifest().bank.extended && !detector->artifact.calibrated) {
    log.tell(KAD_LOG_WARNING,
             "%s: its bank was extended since its thresholds were found: find them anew with kad "
             "calibrate",
             path.c_str());
  }
  check_artifact(detector->artifact, options);
  detector->options = options;
  const ThresholdSettings& own = detector->artifact.thresholds;
  detector->tile_threshold = threshold_of(options.tile_threshold, own.tile, "tile_threshold");
  detector->map_threshold = threshold_of(options.map_threshold, own.map, "map_threshold");
  detector->options.tile_threshold = detector->options.map_threshold = nullptr;
  open_network(detector.get());
  detector->options.onnxruntime = detector->options.cache_folder = nullptr;
  detector->scorer = detector->manifest().method == Method::patchcore
                         ? make_patchcore_scorer(detector->artifact, options.n_threads)
                         : make_cutpaste_scorer(detector->artifact);
  return detector;
}

namespace {

kad_detector_facts facts_of(const Detector& detector) {
  const Manifest& manifest = detector.manifest();
  const kad_detector_options& options = detector.options;
  kad_detector_facts facts = {};
  facts.method = manifest.method == Method::patchcore ? KAD_METHOD_PATCHCORE : KAD_METHOD_CUTPASTE;
  facts.provider = options.provider;
  facts.device_id = options.device_id;
  facts.n_threads = options.n_threads;
  facts.batch = options.batch;
  facts.makes_maps = detector.makes_maps() ? 1 : 0;
  facts.decides_by_map = detector.decides_by_map() ? 1 : 0;
  facts.tile = manifest.preprocessing.tile;
  facts.stride = manifest.preprocessing.stride;
  facts.grid_height = detector.scorer->grid().height;
  facts.grid_width = detector.scorer->grid().width;
  facts.threshold = detector.threshold();
  facts.tile_threshold = detector.tile_threshold;
  facts.map_threshold = detector.map_threshold;
  facts.min_region_area_px = detector.rules().min_region_area > 0
                                 ? detector.rules().min_region_area
                                 : detector.artifact.thresholds.min_region_area_px;
  facts.bank_rows = manifest.bank.rows;
  facts.embedding_dims = detector.scorer->embedding_dims();
  facts.network_path = detector.network_path.c_str();
  facts.network_input = detector.graph.input.c_str();
  facts.onnxruntime = detector.version.c_str();
  facts.manifest = manifest.text.c_str();
  facts.manifest_bytes = static_cast<int64_t>(manifest.text.size());
  facts.has_rules = detector.rules().any() ? 1 : 0;
  facts.precision = manifest.precision;
  return facts;
}

}  // namespace
}  // namespace kad

extern "C" {

kad_status kad_detector_open(const char* path, const kad_detector_options* options,
                             kad_detector** out_detector) {
  return kad::guard([&] {
    kad::check_pointer(out_detector, "out_detector");
    *out_detector = nullptr;
    kad::check_path(path);
    auto detector = std::make_unique<kad_detector>();
    detector->shared = kad::open_detector(path, kad::check_options(options));
    *out_detector = detector.release();
  });
}

void kad_detector_close(kad_detector* detector) { delete detector; }

kad_status kad_detector_info(const kad_detector* detector, kad_detector_facts* out_facts) {
  return kad::guard([&] {
    kad::check_pointer(detector, "detector");
    kad::write_struct(kad::facts_of(*detector->shared), out_facts,
                      KAD_FIRST_SIZE(kad_detector_facts, manifest_bytes), "kad_detector_facts");
  });
}

}  // extern "C"
