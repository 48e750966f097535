/* kad.h - the C ABI of libkad: kitchen-board anomaly detection.
 *
 * A board image passes through stages, each a function here:
 *
 *   kad_image_resize (optional)  ->  kad_tiles_plan  ->  kad_preprocess  ->  [network]
 *     ->  kad_score_tiles (PatchCore: exact nearest-neighbour search in the memory bank)
 *         or kad_density_score (CutPaste: distance of an embedding from the normal ones)
 *     ->  kad_board_add  ->  kad_board_map  ->  kad_map_judge (rules of an inspector, optional)
 *     ->  kad_map_peak (the board's score), kad_board_regions (defect regions)
 *
 * or, where an artifact scores boards in windows, through kad_windows: kad_tiles_plan  ->
 * kad_windows_create  ->  for each window kad_preprocess_window  ->  [network]  ->
 * kad_windows_score;  then kad_windows_tiles, kad_windows_map and kad_windows_regions.
 *
 * Rules that hold for every function:
 *   - Functions return a kad_status; KAD_OK is 0. On failure kad_last_error() tells, on the calling
 *     thread, what was wrong, what was expected, what was given, and what to do.
 *   - No function prints, exits, throws across this boundary, or keeps a pointer it was given,
 *     except where its comment says "borrows".
 *   - The caller owns every buffer. What a ..._create made, its ..._close frees; closing NULL does
 *     nothing.
 *   - Arrays are C-contiguous, little-endian, of the shape given in their comment. Strides are in
 *     bytes. Dimensions: n tiles, t tile side in px, P = grid_height * grid_width patches of one
 *     tile, D channels, M bank rows, k neighbours.
 *   - Structs begin with struct_size = sizeof(the struct), at most 4096 bytes in any version; new
 *     fields are added at the end only. A library that is older than its caller's header does not
 *     look at fields that it does not know, and sets them to 0 in structs that it fills. Fields
 *     named reserved are 0; another value is refused.
 *   - n_threads is the number of threads to use, at least 1. Results never depend on it.
 *   - Threads: functions without an object argument may be called from any thread. A kad_index is
 *     immutable and may be shared; a kad_board belongs to one thread at a time.
 */
#ifndef KAD_KAD_H
#define KAD_KAD_H

#include <stdint.h>

#if defined(KAD_STATIC)
#define KAD_API
#elif defined(__GNUC__)
#define KAD_API __attribute__((visibility("default")))
#else
#define KAD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status, version, processor level ------------------------------------------------------- */

/* Major in the upper 16 bits, minor in the lower 16. From 1.0 on, a new major breaks callers and a
 * new minor only adds. Before, while the major is 0, each new minor may break them: the two numbers
 * together are those of the library's soname, libkad.so.MAJOR.MINOR. */
#define KAD_ABI_VERSION 0x00000001u

typedef int32_t kad_status;
enum {
  KAD_OK = 0,
  KAD_ERROR_INVALID_ARGUMENT = 1,
  KAD_ERROR_NOT_FINITE = 2, /* NaN or Inf where numbers are needed */
  KAD_ERROR_OUT_OF_MEMORY = 3,
  KAD_ERROR_UNSUPPORTED = 4,      /* this processor or build cannot do it */
  KAD_ERROR_BUFFER_TOO_SMALL = 5, /* call again with the count that was returned */
  KAD_ERROR_TOO_SMALL = 6,        /* an image or an active area is smaller than one tile */
  KAD_ERROR_INTERNAL = 7,         /* a defect of the library: please report it */

  /* Only from kad/detector.h. */
  KAD_ERROR_ARTIFACT_NOT_FOUND = 8, /* no such folder */
  KAD_ERROR_ARTIFACT_VERSION = 9,   /* no artifact of kad-export, or one of another major version */
  KAD_ERROR_ARTIFACT_MANIFEST = 10, /* manifest.json or inspection.json is unreadable, or a key or
                                       value is wrong */
  KAD_ERROR_ARTIFACT_LISTING = 11,  /* a file is missing, superfluous, a link or a folder */
  KAD_ERROR_ARTIFACT_SIZE = 12,     /* a file has not the size that the manifest says */
  KAD_ERROR_ARTIFACT_HASH = 13,     /* a file has not the SHA-256 that the manifest says, or
                                       inspection.json was made for another manifest */
  KAD_ERROR_ARTIFACT_TENSORS = 14,  /* a tensor file breaks its format or the manifest, or a stored
                                       index is damaged or another bank's */
  KAD_ERROR_ARTIFACT_NETWORK = 15,  /* the graph is unreadable, or differs from the manifest */
  KAD_ERROR_ARTIFACT_UNSUPPORTED = 16, /* sound, but it needs what this library cannot do */
  KAD_ERROR_ONNXRUNTIME = 17,          /* ONNX Runtime is not found, not loadable or too old */
  KAD_ERROR_PROVIDER = 18,             /* the execution provider cannot be used here */
  KAD_ERROR_NETWORK = 19,              /* the network failed while it ran */
  KAD_ERROR_ANNOTATION = 20,           /* a rectangle leaves its image, or no tile is left */
  KAD_ERROR_CANCELLED = 21,            /* the caller ended the call */
  KAD_ERROR_ARTIFACT_UNREADABLE = 22   /* the system does not give it: permission, disk, limits */
};

KAD_API uint32_t kad_abi_version(void);
/* Static string, for example "0.1.0". */
KAD_API const char* kad_version_string(void);
/* Static string, for example "KAD_ERROR_NOT_FINITE"; "unknown status" for other values. */
KAD_API const char* kad_status_name(kad_status status);
/* Text of this thread's last failure, "" when its last call succeeded. Valid until this thread's
 * next call that gives a kad_status. */
KAD_API const char* kad_last_error(void);

enum {
  KAD_LEVEL_AUTO = -1,
  KAD_LEVEL_SCALAR = 0,
  KAD_LEVEL_AVX2 = 1,      /* AVX2, FMA, F16C, BMI, POPCNT */
  KAD_LEVEL_AVX512 = 2,    /* F, BW, DQ and VL besides */
  KAD_LEVEL_AVX512VNNI = 3 /* VNNI besides */
};

/* The instruction-set level in use: the best that processor and operating system offer, unless
 * forced. */
KAD_API int32_t kad_cpu_level(void);
/* Force a level for the whole process (KAD_LEVEL_AUTO: back to the best). For tests and
 * comparisons: not to be called while other calls run. KAD_ERROR_UNSUPPORTED where the processor
 * lacks it. */
KAD_API kad_status kad_cpu_level_force(int32_t level);

/* ---- images ---------------------------------------------------------------------------------- */

enum {
  KAD_PIXEL_GREY8 = 0,
  KAD_PIXEL_RGB8 = 1,
  KAD_PIXEL_BGR8 = 2,
  KAD_PIXEL_RGBA8 = 3, /* alpha is ignored */
  KAD_PIXEL_BGRA8 = 4,
  KAD_PIXEL_GREY16 = 5, /* native-endian uint16; scaled by 65535, never by the image's maximum */
  KAD_PIXEL_RGB16 = 6,
  KAD_PIXEL_BGR16 = 7
};

typedef struct kad_image {
  uint32_t struct_size;
  int32_t pixel_format; /* KAD_PIXEL_* */
  int32_t height;
  int32_t width;
  int64_t row_stride; /* bytes from one row to the next, at least width * bytes per pixel */
  const void* data;
} kad_image;

/* A rectangle in pixels. This struct is frozen: it never grows. */
typedef struct kad_rect {
  int32_t x;
  int32_t y;
  int32_t width;
  int32_t height;
} kad_rect;

/* Resize to out_height x out_width with an antialiased bilinear (triangle) filter, each axis on its
 * own. Output: interleaved RGB, uint8 for 8-bit formats and uint16 for 16-bit ones,
 * (out_height, out_width, 3). */
KAD_API kad_status kad_image_resize(const kad_image* image, int32_t out_height, int32_t out_width,
                                    int32_t n_threads, void* out);

/* ---- tiles ----------------------------------------------------------------------------------- */

typedef struct kad_tile_grid {
  uint32_t struct_size;
  int32_t image_height;
  int32_t image_width;
  int32_t tile;            /* side in px */
  int32_t stride;          /* px */
  int32_t cover_edges;     /* 1: add a column and a row flush with the far edges; 0: do not */
  const kad_rect* borders; /* active areas inside the image; none: the whole image */
  int64_t n_borders;
  const kad_rect* labels; /* tiles that intersect one of these are dropped */
  int64_t n_labels;
} kad_tile_grid;

/* Top-left corners (x, y) of the tiles, row by row: out_xy is (capacity, 2). *out_count is the
 * number of tiles, also when the status is KAD_ERROR_BUFFER_TOO_SMALL; out_xy may be NULL when
 * capacity is 0, to ask for the count. Several borders: each has its own grid, in order; a tile
 * that an earlier one gave already is not repeated. */
KAD_API kad_status kad_tiles_plan(const kad_tile_grid* grid, int32_t* out_xy, int64_t capacity,
                                  int64_t* out_count);

/* Cut tiles and normalise them: out = (value / full scale - mean) / std, in RGB order, where full
 * scale is 255 for 8-bit and 65535 for 16-bit formats; grey is repeated three times.
 * xy (n_tiles, 2); mean, std (3,); out (n_tiles, 3, tile, tile) float32. */
KAD_API kad_status kad_preprocess(const kad_image* image, const int32_t* xy, int64_t n_tiles,
                                  int32_t tile, const float* mean, const float* std,
                                  int32_t n_threads, float* out);

/* The same for one rectangle of any size: out (3, rect->height, rect->width). */
KAD_API kad_status kad_preprocess_window(const kad_image* image, const kad_rect* rect,
                                         const float* mean, const float* std, int32_t n_threads,
                                         float* out);

/* ---- network ----------------------------------------------------------------------------------
 * Not run here, only looked at. */

/* Check that an ONNX graph (n_bytes,) reads no other file: a tensor's data may lie in one
 * (external_data), and a node may load one (EPContext). KAD_ERROR_ARTIFACT_NETWORK when it does, or
 * when it is no protobuf. */
KAD_API kad_status kad_graph_check(const void* graph, int64_t n_bytes);

/* ---- search ---------------------------------------------------------------------------------- */

/* The base maps of a batch of tiles: what the network returns for each layer, pooled, at the
 * layer's own resolution. Brought to one grid and concatenated they are the patch features. */
typedef struct kad_base_maps {
  uint32_t struct_size;
  int32_t resampling; /* KAD_RESAMPLE_* */
  int32_t grid_height;
  int32_t grid_width;
  int64_t n_tiles;
  int64_t n_layers;
  const float* const* data; /* (n_layers,) pointers to (n_tiles, channels, height, width) */
  const int32_t* channels;  /* (n_layers,) */
  const int32_t* heights;   /* (n_layers,) */
  const int32_t* widths;    /* (n_layers,) */
} kad_base_maps;

enum {
  KAD_RESAMPLE_BILINEAR = 0,         /* half-pixel centres (align_corners = false) */
  KAD_RESAMPLE_ADAPTIVE_AVERAGE = 1, /* means over [floor(i*n/g), ceil((i+1)*n/g)) */
  /* Half-pixel centres, every position of a layer 1, 2, 4 ... patches wide, the least of these that
   * covers the grid: what lies behind the grid's end is cut off. The same as bilinear where sides
   * are whole multiples. */
  KAD_RESAMPLE_ALIGNED_BILINEAR = 2
};

/* Patch features of the batch, out (n_tiles, P, D) float32, D the sum of the channels. */
KAD_API kad_status kad_patch_features(const kad_base_maps* maps, int32_t n_threads, float* out);

/* Those of some patches alone, the rectangle `patches` of the grid of the one tile that the maps
 * are of: out (patches->height * patches->width, D). */
KAD_API kad_status kad_window_features(const kad_base_maps* maps, const kad_rect* patches,
                                       int32_t n_threads, float* out);

typedef struct kad_index kad_index;

/* Build the search index of a bank (rows, dims) float32. Borrows bank: it must stay in place,
 * unchanged, until kad_index_close. KAD_ERROR_NOT_FINITE names the first bad row. */
KAD_API kad_status kad_index_create(const float* bank, int64_t rows, int64_t dims,
                                    int32_t n_threads, kad_index** out_index);

/* The same for a bank of patch features of such maps, whose queries are then a good deal faster:
 * what comes from a coarser map than the grid of patches is searched at that map's resolution.
 * n_tiles and data of the maps are not looked at. The answers are the same. */
KAD_API kad_status kad_index_create_for_maps(const float* bank, int64_t rows,
                                             const kad_base_maps* maps, int32_t n_threads,
                                             kad_index** out_index);

/* What takes long to build of an index, as bytes to be kept with its bank: a function of the bank
 * and of the layout of its maps alone, built anew in arithmetic that is the same on every
 * processor. bank_sha256 names the bank: the SHA-256 of the file that it lies in, 64 hexadecimal
 * digits. out_bytes is the number written to out, 0 where the index has no codes. With too small a
 * capacity nothing is built: KAD_ERROR_BUFFER_TOO_SMALL, and out_bytes is one that suffices. */
KAD_API kad_status kad_index_store(const kad_index* index, const char* bank_sha256,
                                   int32_t n_threads, uint8_t* out, int64_t capacity,
                                   int64_t* out_bytes);

/* The index of kad_index_create_for_maps from what kad_index_store wrote: in a fraction of the
 * time, and with the same answers. Borrows bank and stored, which begins at a multiple of 8 bytes,
 * until kad_index_close. bank_sha256 vouches for the bank, whose values are not looked at; bytes of
 * another bank or layout, and damaged ones, are refused: KAD_ERROR_ARTIFACT_TENSORS. What another
 * version of libkad stored is not used: the index is then built from the bank. */
KAD_API kad_status kad_index_create_stored(const float* bank, int64_t rows,
                                           const kad_base_maps* maps, const char* bank_sha256,
                                           const uint8_t* stored, int64_t stored_bytes,
                                           int32_t n_threads, kad_index** out_index);
KAD_API void kad_index_close(kad_index* index);

/* What an index is. Rows are screened by codes of their leading principal components, and decided
 * by their float32 values. */
typedef struct kad_index_facts {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  int64_t rows;
  int64_t dims;
  int64_t narrow_dims; /* components held in 8 bits, at most; 0: the index has no codes */
  int64_t wide_dims;   /* components held in 16 bits; 0: the index has no codes */
  int64_t bytes;       /* that the index holds beside the bank */
} kad_index_facts;

KAD_API kad_status kad_index_info(const kad_index* index, kad_index_facts* out_facts);

/* What an index has done since it was created, over all calls and threads. A pair is a query and a
 * row; the stages, in order, look at what the ones before have left. Times are summed over threads,
 * in ns. */
typedef struct kad_search_stats {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  int64_t queries;
  int64_t dense_queries;       /* those that float32 products with all rows served better */
  int64_t narrow_pairs;        /* compared by 8-bit codes */
  int64_t narrow_products;     /* multiplications of 8-bit codes in that */
  int64_t wide_pairs;          /* compared by 16-bit codes */
  int64_t decided_pairs;       /* whose float32 distance was taken */
  int64_t dense_pairs;         /* compared by float32 products, on the dense path */
  int64_t dense_decided_pairs; /* whose float32 distance was taken, on the dense path */
  int64_t prepare_ns;          /* projecting and encoding queries, choosing how many components */
  int64_t narrow_ns;
  int64_t wide_ns;
  int64_t decide_ns;
  int64_t dense_ns;
  int64_t seed_products; /* multiplications of 8-bit codes to find first guesses */
  int64_t seed_ns;
} kad_search_stats;

KAD_API kad_status kad_index_stats(const kad_index* index, kad_search_stats* out_stats);

/* Exact k nearest bank rows of each query by Euclidean distance, nearest first. Distances are the
 * float32 direct difference, summed in an order that is the same at every level; ties go to the
 * lowest row. queries (n, dims); out_dist (n, k) float32; out_index (n, k). 1 <= k <= 16,
 * k <= rows. */
KAD_API kad_status kad_index_query(const kad_index* index, const float* queries, int64_t n,
                                   int32_t k, int32_t n_threads, float* out_dist,
                                   int64_t* out_index);

/* The same for the patch features of base maps, without storing them: out_dist and out_index are
 * (n_tiles, P, k). */
KAD_API kad_status kad_index_query_maps(const kad_index* index, const kad_base_maps* maps,
                                        int32_t k, int32_t n_threads, float* out_dist,
                                        int64_t* out_index);

enum {
  KAD_REWEIGHT_NONE = 0, /* tile score = s*, the largest patch distance */
  /* s* (1 - exp(s* / sqrt D) / sum_i exp(|q - m_i| / sqrt D)), m_i the n_neighbors nearest rows of
   * m*, without m* */
  KAD_REWEIGHT_THESIS = 1,
  /* s* (1 - exp(s*) / sum_i exp(|q - m_i|)), m* itself counted among the m_i (arXiv 2106.08265,
   * equation 7) */
  KAD_REWEIGHT_PAPER = 2
};

typedef struct kad_score_options {
  uint32_t struct_size;
  int32_t reweighting;      /* KAD_REWEIGHT_* */
  const int64_t* neighbors; /* (M, neighbor_columns): other rows, nearest first */
  int64_t neighbor_columns;
  int64_t n_neighbors; /* how many of those columns to use */
} kad_score_options;

/* PatchCore scores of a batch: for every patch the distance to its nearest bank row (out_dist,
 * (n_tiles, P)) and that row (out_index, (n_tiles, P)); for every tile its score (out_score,
 * (n_tiles,)). Equations 4.7 to 4.9 of the thesis. */
KAD_API kad_status kad_score_tiles(const kad_index* index, const kad_base_maps* maps,
                                   const kad_score_options* options, int32_t n_threads,
                                   float* out_dist, int64_t* out_index, float* out_score);

/* ---- coreset --------------------------------------------------------------------------------- */

/* Directions along which the points differ most, such as their leading principal components. They
 * set how much work a selection takes, never what it selects. */
typedef struct kad_directions {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  int64_t dims;
  int64_t n;           /* at most dims; 0: none, all dimensions are looked at */
  const float* centre; /* (dims,) subtracted from points first, or NULL */
  const float* rows;   /* (n, dims), orthonormal up to rounding */
} kad_directions;

/* Lower dist[i] to the distance of point i from its nearest centre, where that is smaller. points
 * (n, dims), centres (n_centres, dims), dist (n,), infinite where there is none so far. Distances
 * are those of kad_index_query.
 * *out_decided, unless NULL, is the number of pairs that had to be measured in full. */
KAD_API kad_status kad_kcenter_flush(const kad_directions* directions, const float* points,
                                     int64_t n, const float* centres, int64_t n_centres,
                                     int32_t n_threads, float* dist, int64_t* out_decided);

typedef struct kad_kcenter kad_kcenter;

/* Greedy k-center selection (equation 4.4 of the thesis) among points (n, dims), whose distances to
 * the nearest centre so far are dist (n,): infinite where there is none, negative for points that
 * are centres. Borrows points until kad_kcenter_close. In every step the n_skipped farthest points
 * are passed over, for selections with outliers; 0 is plain k-center. A kad_kcenter belongs to one
 * thread at a time. */
KAD_API kad_status kad_kcenter_create(const kad_directions* directions, const float* points,
                                      int64_t n, const float* dist, int64_t n_skipped,
                                      int32_t n_threads, kad_kcenter** out_kcenter);
KAD_API void kad_kcenter_close(kad_kcenter* kcenter);

/* Choose up to `wanted` more points, always the one farthest from all centres, ties to the lowest
 * row; its row and distance go to out_rows and out_dist (wanted,). Stops, with *out_count below
 * wanted, when no point is left, or when the next would not be farther than outside_dist (or as
 * far, from row outside_row on): then a point that is not among these may be the farthest. It is
 * -INFINITY where there are no others. When memory runs out, too, *out_count points have been
 * chosen; a further call goes on from there. */
KAD_API kad_status kad_kcenter_pick(kad_kcenter* kcenter, int64_t wanted, float outside_dist,
                                    int64_t outside_row, int32_t n_threads, int64_t* out_rows,
                                    float* out_dist, int64_t* out_count);

/* What a kad_kcenter has done so far. Times in ns. */
typedef struct kad_kcenter_stats {
  uint32_t struct_size;
  uint32_t reserved;      /* 0 */
  int64_t flushes;        /* how often chosen points were compared with all points */
  int64_t screened_pairs; /* in that, compared along the directions */
  int64_t decided_pairs;  /* of these, measured in full */
  int64_t inner_pairs;    /* measured in full among the points that were farthest */
  int64_t flush_ns;
  int64_t draw_ns; /* finding the farthest points after a flush */
  int64_t inner_ns;
} kad_kcenter_stats;

KAD_API kad_status kad_kcenter_info(const kad_kcenter* kcenter, kad_kcenter_stats* out_stats);

/* ---- density --------------------------------------------------------------------------------- */

enum {
  KAD_DENSITY_GAUSSIAN = 0, /* |L^-1 (x - mean)|: the Mahalanobis distance */
  /* sqrt(-2 b^2 log(1/S sum_i exp(-|x - x_i|^2 / (2 b^2)))), b the bandwidth: a kernel density
   * estimate as a distance, 0 at the least */
  KAD_DENSITY_KERNEL = 1
};

/* Where the embeddings of normal tiles lie. The other kind's fields are ignored. */
typedef struct kad_density {
  uint32_t struct_size;
  int32_t kind; /* KAD_DENSITY_* */
  int64_t dims;
  const float* mean;     /* gaussian: (dims,) */
  const float* cholesky; /* gaussian: (dims, dims), L; diagonal above 0, nothing above it is used */
  const float* samples;  /* kernel: (n_samples, dims), the x_i */
  int64_t n_samples;
  double bandwidth;
} kad_density;

/* CutPaste scores of embeddings (n, dims): their distance from the normal ones, out_score (n,).
 * Computed in float64, in a fixed order. KAD_ERROR_NOT_FINITE names the first bad row. */
KAD_API kad_status kad_density_score(const kad_density* density, const float* embeddings, int64_t n,
                                     int32_t n_threads, float* out_score);

/* ---- board map and regions ------------------------------------------------------------------- */

typedef struct kad_board kad_board;

typedef struct kad_board_options {
  uint32_t struct_size;
  int32_t image_height;
  int32_t image_width;
  int32_t tile;
  int32_t grid_height;
  int32_t grid_width;
  int32_t smoothing_radius; /* px; the Gaussian is cut off there; 0: no smoothing */
  float smoothing_sigma;    /* px */
} kad_board_options;

typedef struct kad_region {
  int32_t x; /* box, px */
  int32_t y;
  int32_t width;
  int32_t height;
  int32_t peak_x; /* where the map is largest, px */
  int32_t peak_y;
  float peak;     /* the map's value there */
  float distance; /* largest patch distance among the patches that cover the peak */
  int64_t area_px;
  int64_t tile;     /* that patch's tile, in the order of kad_board_add */
  int64_t patch;    /* its place in the grid, row * grid_width + column */
  int64_t bank_row; /* its nearest bank row, -1 when no indices were added */
} kad_region;

/* An empty board: accumulates tile maps. A tile map is the grid of patch distances, bilinearly
 * enlarged to the tile (half-pixel centres) and smoothed (reflect-101 at the tile's edge). */
KAD_API kad_status kad_board_create(const kad_board_options* options, kad_board** out_board);
KAD_API void kad_board_close(kad_board* board);

/* Take all tiles off, for the next image of the same size: its memory is kept. */
KAD_API kad_status kad_board_clear(kad_board* board);

/* Add tiles: xy (n_tiles, 2), dist (n_tiles, P), index (n_tiles, P) or NULL. */
KAD_API kad_status kad_board_add(kad_board* board, const int32_t* xy, int64_t n_tiles,
                                 const float* dist, const int64_t* index, int32_t n_threads);

/* The board map: tile maps averaged where they overlap, NaN where no tile lies. out_map is
 * (image_height, image_width) float32. The board is unchanged and may be added to further. */
KAD_API kad_status kad_board_map(const kad_board* board, int32_t n_threads, float* out_map);

/* A map at another size, bilinearly (half-pixel centres), for an image that was resized before it
 * was scored. NaN counts for nothing: a pixel is the weighted mean of the values around it, NaN
 * where they have less than half of the weight. map (height, width), out (out_height, out_width)
 * float32. */
KAD_API kad_status kad_map_resize(const float* map, int32_t height, int32_t width,
                                  int32_t out_height, int32_t out_width, int32_t n_threads,
                                  float* out);

/* A place with a threshold of its own: factor times the board's. This struct is frozen. */
typedef struct kad_zone {
  int32_t x; /* px */
  int32_t y;
  int32_t width;
  int32_t height;
  float factor; /* above 0 */
} kad_zone;

/* What an inspector sets, in px of the map. What of a rectangle lies outside of it is left out. */
typedef struct kad_map_rules {
  uint32_t struct_size;
  int32_t edge_margin_x; /* so near to the edge of its active area nothing is judged */
  int32_t edge_margin_y;
  int32_t reserved;        /* 0 */
  const kad_rect* borders; /* active areas; none: the whole map */
  int64_t n_borders;
  const kad_rect* ignored; /* nothing is judged in them */
  int64_t n_ignored;
  const kad_zone* zones; /* where they overlap, the smallest factor counts */
  int64_t n_zones;
} kad_map_rules;

/* Apply rules to a map (height, width), in place: NaN where it is not judged, divided by the factor
 * in zones, so that one threshold holds for all of it. */
KAD_API kad_status kad_map_judge(float* map, int32_t height, int32_t width,
                                 const kad_map_rules* rules);

/* The same for tiles at the corners xy (n_tiles, 2) of such a map: out_factor (n_tiles,) is the
 * smallest factor of a tile's judged pixels, 1 outside of zones, and 0 where none is judged. */
KAD_API kad_status kad_tiles_judge(const kad_map_rules* rules, int32_t height, int32_t width,
                                   const int32_t* xy, int64_t n_tiles, int32_t tile,
                                   float* out_factor);

/* The highest threshold at which a map (height, width) has a region of at least min_area_px pixels;
 * for 1 its largest value. Values are 0 or above; NaN counts for nothing. *out_peak is 0 where no
 * threshold gives such a region, and NaN where the map has no value at all. */
KAD_API kad_status kad_map_peak(const float* map, int32_t height, int32_t width,
                                int64_t min_area_px, float* out_peak);

/* Defect regions of a map that kad_board_map gave: 8-connected components of map >= threshold with
 * at least min_area_px pixels, by falling peak (ties: by peak_y, then peak_x). region_size is
 * sizeof(kad_region); *out_count is the number of regions, also when the status is
 * KAD_ERROR_BUFFER_TOO_SMALL; out_regions may be NULL when capacity is 0. */
KAD_API kad_status kad_board_regions(const kad_board* board, const float* map, float threshold,
                                     int64_t min_area_px, uint32_t region_size,
                                     kad_region* out_regions, int64_t capacity, int64_t* out_count);

/* ---- windows ---------------------------------------------------------------------------------
 * A board that the network sees once, in windows, instead of in tiles that overlap. Every patch is
 * a cell of `patch` px of the whole image, and its feature is the one that a single pass of the
 * network over the whole image gives: each window is seen with a halo as wide as a feature reaches,
 * and what is found in the halo is not used. So nothing but rounding depends on the windows. */

typedef struct kad_windows_options {
  uint32_t struct_size;
  int32_t image_height;
  int32_t image_width;
  int32_t window; /* px, a multiple of align: a square of this side is the largest window without
                   * its halo; longer ones have no more px, halo included */
  int32_t halo;   /* px, a multiple of align */
  int32_t align;  /* px: side of a cell of the coarsest layer, a multiple of patch */
  int32_t patch;  /* px: side of a cell of the finest layer */
  int32_t tile;   /* side of a tile, px; a multiple of align, and large enough that labels beside it
                   * leave some of it: at least 2 * label_margin + 4 * patch */
  int32_t label_margin;     /* px: what is so near to a label has no value, as the label itself */
  int32_t smoothing_radius; /* px; the Gaussian is cut off there; 0: no smoothing */
  float smoothing_sigma;    /* px */
  int32_t reserved;         /* 0 */
  const kad_rect* borders;  /* active areas inside the image; none: the whole image */
  int64_t n_borders;
  const kad_rect* labels;
  int64_t n_labels;
  const int32_t* xy; /* (n_tiles, 2): corners of the tiles that get scores */
  int64_t n_tiles;
} kad_windows_options;

/* What the network sees of an image, and the part of it that is not halo. This struct is frozen. */
typedef struct kad_window {
  int32_t x; /* px */
  int32_t y;
  int32_t width;
  int32_t height;
  int32_t core_x;
  int32_t core_y;
  int32_t core_width;
  int32_t core_height;
} kad_window;

/* One board. Belongs to one thread at a time. */
typedef struct kad_windows kad_windows;

KAD_API kad_status kad_windows_create(const kad_windows_options* options,
                                      kad_windows** out_windows);
KAD_API void kad_windows_close(kad_windows* windows);

/* The windows, row by row of each active area. *out_count is their number, also when the status is
 * KAD_ERROR_BUFFER_TOO_SMALL; out may be NULL when capacity is 0, to ask for it. */
KAD_API kad_status kad_windows_plan(const kad_windows* windows, kad_window* out, int64_t capacity,
                                    int64_t* out_count);

/* Search the patches of window number i, each window once, in any order. `maps` is of one tile:
 * what the network gives for all that the window sees, ceil(side / cell) positions a side of each
 * layer, with KAD_RESAMPLE_ALIGNED_BILINEAR and a grid of patches. After a failure the window may
 * be searched again. */
KAD_API kad_status kad_windows_score(kad_windows* windows, int64_t i, const kad_index* index,
                                     const kad_base_maps* maps, const kad_score_options* options,
                                     int32_t n_threads);

/* Once every window was searched: the tiles. A tile's patches are those whose centre lies in it, P
 * = (tile / patch)^2: their distances out_dist (n_tiles, P) and rows out_index (n_tiles, P), 0 and
 * -1 at labels; out_score (n_tiles,) is the largest distance, re-weighted. Each may be NULL. */
KAD_API kad_status kad_windows_tiles(const kad_windows* windows, float* out_score, float* out_dist,
                                     int64_t* out_index);

/* Once every window was searched: the map out_map (image_height, image_width). An active area is
 * enlarged and smoothed like one large tile; areas are averaged where they overlap. NaN outside of
 * them, and at labels, which count for nothing in the smoothing around them. `kept` is NULL, or
 * (n_tiles,): then only patches of tiles that are not 0 in it count. */
KAD_API kad_status kad_windows_map(const kad_windows* windows, const uint8_t* kept,
                                   int32_t n_threads, float* out_map);

/* As kad_board_regions. `tile` is the first one that the patch is part of, and -1, as `patch`,
 * where it is part of none. */
KAD_API kad_status kad_windows_regions(const kad_windows* windows, const float* map,
                                       float threshold, int64_t min_area_px, uint32_t region_size,
                                       kad_region* out_regions, int64_t capacity,
                                       int64_t* out_count);

#ifdef __cplusplus
}
#endif
#endif /* KAD_KAD_H */
