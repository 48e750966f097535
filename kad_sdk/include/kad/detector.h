/* detector.h - scoring boards with an artifact of kad-export, in a process without Python.
 *
 *   kad_detector_open (once)  ->  kad_session_create (one for each thread)
 *     ->  kad_session_score_image (each board)  ->  kad_result_info, _tile, _region
 *
 * Only in a libkad that was built with KAD_WITH_RUNTIME. The rules of kad/kad.h hold here, and
 * these besides:
 *   - A field that is 0 (or NULL) has the meaning that its comment gives to 0, so a struct of which
 *     only struct_size is set is a useful one.
 *   - Threads: a kad_detector is immutable and may be shared; a kad_session belongs to one thread
 *     at a time, but for kad_session_cancel; a kad_result may be read by several threads.
 *   - Lifetimes: a session keeps alive what it needs of its detector, and a result what it needs of
 *     both, so they may be closed in any order. Strings and arrays that a function hands out live
 *     as long as the object that it was asked for.
 *   - Callbacks are called on the thread that called the library, and on several threads at once
 *     when several sessions score; ONNX Runtime may log on threads of its own. They must not throw,
 *     and may call any function of the library but those of the session that called them. Their
 *     contexts must live until the detector and all its sessions and results are closed.
 *   - fork: a detector that was opened before it has none of ONNX Runtime's threads in the child,
 * and waits for them there. Open one in the child.
 *   - The files of an artifact are mapped: they must not be changed in place while a detector is
 *     open. To replace an artifact, put a new folder in its place, as kad-export does.
 */
#ifndef KAD_DETECTOR_H
#define KAD_DETECTOR_H

#include "kad/kad.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- open ------------------------------------------------------------------------------------ */

enum { KAD_METHOD_PATCHCORE = 0, KAD_METHOD_CUTPASTE = 1 };

enum {
  KAD_PROVIDER_CPU = 0,
  KAD_PROVIDER_CUDA = 1,
  KAD_PROVIDER_TENSORRT = 2,
  KAD_PROVIDER_CALLER = 3 /* the caller's own engine: kad_detector_options.network */
};

enum { KAD_LOG_INFO = 1, KAD_LOG_WARNING = 2, KAD_LOG_ERROR = 3 };

/* What the network gives for a batch of tiles, data (n_tiles, channels, height, width) float32, to
 * be filled in; logits and embedding have height and width 1. This struct is frozen. */
typedef struct kad_network_output {
  const char* name; /* in the ONNX graph */
  int64_t channels;
  int64_t height;
  int64_t width;
  float* data;
} kad_network_output;

typedef struct kad_network_batch {
  uint32_t struct_size;
  int32_t tile; /* side in px; 0 for a window of a board, which is one tile of any size */
  int64_t n_tiles;
  const float* tiles; /* (n_tiles, 3, height, width), normalised */
  const kad_network_output* outputs;
  int64_t n_outputs;
  int32_t height; /* px; both are `tile` where that is not 0 */
  int32_t width;
} kad_network_batch;

/* Runs the network in place of ONNX Runtime; called while a session scores, never before, so the
 * engine may be built from what kad_detector_info says of the opened detector. KAD_OK,
 * KAD_ERROR_CANCELLED, or any other status: the call then fails with KAD_ERROR_NETWORK. */
typedef kad_status (*kad_network_fn)(void* context, const kad_network_batch* batch);

/* A board to be denoised in place, with the settings of OpenCV's fastNlMeansDenoisingColored. */
typedef struct kad_denoise_frame {
  uint32_t struct_size;
  int32_t height;
  int32_t width;
  int32_t template_window; /* px */
  int32_t search_window;   /* px */
  int32_t reserved;        /* 0 */
  double h;
  double h_color;
  uint8_t* rgb; /* (height, width, 3) */
} kad_denoise_frame;

/* KAD_OK, KAD_ERROR_CANCELLED, or any other status: the call then fails with KAD_ERROR_UNSUPPORTED.
 */
typedef kad_status (*kad_denoise_fn)(void* context, const kad_denoise_frame* frame);

/* What happens, for a log file. Failures are not among it: they come as a status. */
typedef void (*kad_log_fn)(void* context, int32_t severity, const char* text);

typedef struct kad_detector_options {
  uint32_t struct_size;
  int32_t provider;  /* KAD_PROVIDER_*, 0 is the CPU; it is used or refused, never replaced */
  int32_t device_id; /* which GPU */
  /* Threads that a call uses; 0: as many as processors may be used. ONNX Runtime has one pool of as
   * many for the detector, which calls that run at the same time share; the other stages start
   * theirs in each call. */
  int32_t n_threads;
  int32_t batch;       /* tiles in memory at a time; 0: 16 */
  int32_t scores_only; /* 1: no maps and no regions, which takes less time */
  /* In place of the artifact's own, above 0 and within float32; NULL: the artifact's. Read while
   * the detector is opened. */
  const double* tile_threshold;
  const double* map_threshold;
  /* The library of ONNX Runtime, 1.20 or newer; NULL: the one that the environment variable
   * KAD_ONNXRUNTIME names, else the loader's libonnxruntime.so.1 or libonnxruntime.so. */
  const char* onnxruntime;
  /* Where kad-export tensorrt has put TensorRT's engines; NULL: $XDG_CACHE_HOME/kad/tensorrt or
   * ~/.cache/kad/tensorrt. Without an engine for this GPU, this network and such batches,
   * KAD_PROVIDER_TENSORRT is refused: building one takes minutes. */
  const char* cache_folder;
  kad_network_fn network; /* NULL: ONNX Runtime */
  void* network_context;
  /* Needed for artifacts that denoise boards (`preprocessing.denoise`) only: libkad has no OpenCV.
   */
  kad_denoise_fn denoise;
  void* denoise_context;
  kad_log_fn log; /* NULL: nothing is told */
  void* log_context;
} kad_detector_options;

typedef struct kad_detector kad_detector;

/* Open an artifact, the folder NAME.kad. Everything in it is checked first: see docs/artifact.md.
 * options may be NULL. Fails with KAD_ERROR_ARTIFACT_*, _ONNXRUNTIME, _PROVIDER. */
KAD_API kad_status kad_detector_open(const char* path, const kad_detector_options* options,
                                     kad_detector** out_detector);
KAD_API void kad_detector_close(kad_detector* detector);

typedef struct kad_detector_facts {
  uint32_t struct_size;
  int32_t method;   /* KAD_METHOD_* */
  int32_t provider; /* what the network really runs on */
  int32_t device_id;
  int32_t n_threads;
  int32_t batch;
  int32_t makes_maps;     /* 0: scores alone */
  int32_t decides_by_map; /* 1: the map's peak decides a board; 0: its largest tile score */
  int32_t tile;           /* px */
  int32_t stride;         /* px */
  int32_t grid_height;    /* of a tile's map before it is enlarged: P = height * width */
  int32_t grid_width;
  double threshold; /* of boards: one of the two below */
  double tile_threshold;
  double map_threshold;
  int64_t min_region_area_px;
  int64_t bank_rows;         /* 0 for CutPaste */
  int64_t embedding_dims;    /* 0 for PatchCore */
  const char* network_path;  /* the ONNX graph in use, for callers who bring their own engine */
  const char* network_input; /* name of its input */
  const char* onnxruntime;   /* version, for example "1.21.0"; "" with KAD_PROVIDER_CALLER */
  const char* manifest;      /* text of manifest.json */
  int64_t manifest_bytes;
  int32_t has_rules;     /* 1: rules that were set on site are in force */
  int32_t reserved;      /* 0 */
  const char* precision; /* what the network computes in: "fp32", "fp16" or "int8" */
} kad_detector_facts;

KAD_API kad_status kad_detector_info(const kad_detector* detector, kad_detector_facts* out_facts);

/* ---- score ----------------------------------------------------------------------------------- */

typedef struct kad_session kad_session;

/* One thread's scratch memory: it is kept from board to board. */
KAD_API kad_status kad_session_create(const kad_detector* detector, kad_session** out_session);
KAD_API void kad_session_close(kad_session* session);

/* Returns 0 to go on; any other value ends the call with KAD_ERROR_CANCELLED. Of an artifact that
 * scores boards in windows, these are windows. */
typedef int32_t (*kad_progress_fn)(void* context, int64_t tiles_done, int64_t n_tiles);

typedef struct kad_score_request {
  uint32_t struct_size;
  uint32_t reserved;       /* 0 */
  const kad_rect* borders; /* active areas, px of the image; none: the whole image */
  int64_t n_borders;
  const kad_rect* labels; /* tiles that intersect one of these are left out; in windows, patches
                           * that do, or are nearer than patchcore.windows.label_margin_px */
  int64_t n_labels;
  kad_progress_fn progress; /* called after each batch; NULL: nothing is told */
  void* progress_context;
} kad_score_request;

typedef struct kad_result kad_result;

/* Score a board; request may be NULL. Fails with KAD_ERROR_TOO_SMALL where the image or an active
 * area is smaller than a tile, and with KAD_ERROR_ANNOTATION where a rectangle leaves the image, no
 * tile is left, or the rules set on site leave nothing to judge. After a failure the session can be
 * used again. */
KAD_API kad_status kad_session_score_image(kad_session* session, const kad_image* image,
                                           const kad_score_request* request,
                                           kad_result** out_result);

/* Score tiles, without a board: those of an image at the corners xy (n_tiles, 2), neither resized
 * nor denoised. out_score (n_tiles,); out_patches (n_tiles, P), each tile's map before it is
 * enlarged, or NULL; out_rows (n_tiles, P), PatchCore's nearest bank rows, or NULL. An artifact
 * that scores boards in windows scores no tiles: KAD_ERROR_INVALID_ARGUMENT. */
KAD_API kad_status kad_session_score_tiles(kad_session* session, const kad_image* image,
                                           const int32_t* xy, int64_t n_tiles, float* out_score,
                                           float* out_patches, int64_t* out_rows);

/* End the call that this session is in, or else its next one, with KAD_ERROR_CANCELLED: also where
 * the call that was meant has just ended. The one function that may be called while another thread
 * uses the session. */
KAD_API kad_status kad_session_cancel(kad_session* session);

/* ---- results --------------------------------------------------------------------------------- */

KAD_API void kad_result_close(kad_result* result);

typedef struct kad_result_facts {
  uint32_t struct_size;
  int32_t anomalous; /* 1: score >= threshold */
  float score;       /* the largest tile score, or the largest value of the map in px of the frame,
                      * before it is brought to the image's size; by the rules set on site */
  int32_t reserved;  /* 0 */
  double
      normalised_score; /* 1 / (1 + exp(-(score - threshold) / scale)): the threshold is at 0.5 */
  double threshold;
  double tile_threshold;
  double map_threshold;
  int32_t image_height;
  int32_t image_width;
  int32_t frame_height; /* of the frame that tiles were cut from, after resizing */
  int32_t frame_width;
  int64_t n_tiles;
  int64_t n_regions;
  const float* map;        /* (image_height, image_width), NaN where nothing was scored or by the
                            * rules is not judged, over the factors of their zones; or NULL */
  const float* embeddings; /* (n_tiles, embedding_dims) of CutPaste; or NULL */
  double prepare_ms;
  double preprocess_ms;
  double network_ms;
  double search_ms; /* of CutPaste: the density */
  double map_ms;
  double regions_ms;
  double total_ms;
  double scored_share; /* of the active areas without the labels, how much the map has a score of,
                        * 0 to 1, before rules; less than 1 where something is so near to a label
                        * that no tile without it holds it, or, in windows, within
                        * label_margin_px of it. -1 without a map */
} kad_result_facts;

KAD_API kad_status kad_result_info(const kad_result* result, kad_result_facts* out_facts);

typedef struct kad_tile_result {
  uint32_t struct_size;
  int32_t anomalous;
  int32_t x; /* top-left corner, px of the frame */
  int32_t y;
  float score;
  int32_t reserved; /* 0 */
  double normalised_score;
  double factor; /* by rules set on site, of its threshold; 0: nothing of it is judged */
} kad_tile_result;

/* Tile number i, 0 <= i < n_tiles, in the order of kad_tiles_plan. */
KAD_API kad_status kad_result_tile(const kad_result* result, int64_t i, kad_tile_result* out_tile);

typedef struct kad_region_result {
  uint32_t struct_size;
  int32_t x; /* box, px of the image */
  int32_t y;
  int32_t width;
  int32_t height;
  int32_t peak_x; /* where the map is largest, px of the image */
  int32_t peak_y;
  float peak;     /* the value there of the map in px of the frame */
  float distance; /* largest value, before smoothing and averaging, of the patches that cover it */
  int32_t nearest_x; /* centre of the training patch that this patch is most like, px of the
                      * training image, after resizing where the artifact resizes */
  int32_t nearest_y;
  int32_t reserved; /* 0 */
  int64_t area_px;
  const char* nearest_image; /* name of the training image; NULL for CutPaste */
} kad_region_result;

/* Region number i, 0 <= i < n_regions, by falling peak. */
KAD_API kad_status kad_result_region(const kad_result* result, int64_t i,
                                     kad_region_result* out_region);

#ifdef __cplusplus
}
#endif
#endif /* KAD_DETECTOR_H */
