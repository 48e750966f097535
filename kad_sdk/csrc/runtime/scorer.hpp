// A method's own stages: from what the network gives for a batch of tiles to scores and tile maps.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/artifact.hpp"

namespace kad {

/// What a method finds on n tiles, into the caller's memory.
struct Findings {
  float* scores;      // (n,)
  float* patches;     // (n, P), each tile's map before it is enlarged; or null
  int64_t* rows;      // (n, P), PatchCore's nearest bank rows
  float* embeddings;  // (n, E) of CutPaste
};

/// Immutable, and safe to share between threads. Borrows the artifact.
class Scorer {
 public:
  virtual ~Scorer() = default;

  /// outputs[i] is (n, ...), the network's output i. Patches that are asked for need the graph with
  /// Grad-CAM where the artifact's maps come from it.
  virtual void score(float* const* outputs, int64_t n, int32_t n_threads,
                     const Findings& found) const = 0;
  /// Search window number i of a board from outputs[j] (1, channels, sizes[j]), of PatchCore in
  /// windows alone; `seen` is what the network saw.
  virtual void score_window(kad_windows* board, int64_t i, Size seen, float* const* outputs,
                            const std::vector<Size>& sizes, int32_t n_threads) const;
  /// Of a tile's map before it is enlarged.
  virtual Size grid() const = 0;
  /// E of CutPaste; 0 for PatchCore.
  virtual int64_t embedding_dims() const = 0;

  int64_t patches() const { return int64_t{grid().height} * grid().width; }
};

std::unique_ptr<Scorer> make_patchcore_scorer(const Artifact& artifact, int32_t n_threads);
std::unique_ptr<Scorer> make_cutpaste_scorer(const Artifact& artifact);

}  // namespace kad
