// CutPaste: the distance of an embedding from the normal ones; Grad-CAM in units of that score.
#include <algorithm>
#include <cmath>

#include "runtime/scorer.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

constexpr int kEmbedding = 1;  // among the graph's outputs: logits, embedding, cam
constexpr int kCam = 2;

kad_density make_density(const Artifact& artifact) {
  kad_density density = {};
  density.struct_size = sizeof(density);
  density.kind = artifact.manifest.density.kind;
  density.dims = artifact.manifest.cutpaste.embedding_dims;
  if (density.kind == KAD_DENSITY_GAUSSIAN) {
    density.mean = artifact.density.at("mean").floats();
    density.cholesky = artifact.density.at("cholesky").floats();
  } else {
    density.samples = artifact.density.at("samples").floats();
    density.n_samples = artifact.density.at("samples").shape[0];
    density.bandwidth = artifact.manifest.density.bandwidth;
  }
  return density;
}

// Of n tiles' maps (n, P) none may hold NaN or Inf: the density, which looks at embeddings, would
// not see it.
void check_cam(const float* cam, int64_t n, int64_t patches) {
  const float* end = cam + n * patches;
  const float* bad = std::find_if(cam, end, [](float value) { return !std::isfinite(value); });
  if (bad == end) return;
  fail(KAD_ERROR_NOT_FINITE,
       "the network's output 'cam' of tile %lld holds NaN or Inf: every value must be finite",
       static_cast<long long>((bad - cam) / patches));
}

// cam / max(cam) * score, so that the peak is the tile's score; zeros where max(cam) is 0.
void scale_cam(const float* cam, int64_t n, float score, float* out) {
  const float peak = *std::max_element(cam, cam + n);
  for (int64_t i = 0; i < n; ++i) out[i] = (peak != 0.0F ? cam[i] / peak : 0.0F) * score;
}

class CutPasteScorer : public Scorer {
 public:
  explicit CutPasteScorer(const Artifact& artifact)
      : settings_(artifact.manifest.cutpaste), density_(make_density(artifact)) {}

  void score(float* const* outputs, int64_t n, int32_t n_threads,
             const Findings& found) const override {
    const float* embeddings = outputs[kEmbedding];
    check_stage(kad_density_score(&density_, embeddings, n, n_threads, found.scores));
    std::copy(embeddings, embeddings + n * settings_.embedding_dims, found.embeddings);
    if (found.patches == nullptr) return;
    if (settings_.grad_cam) check_cam(outputs[kCam], n, patches());
    for (int64_t i = 0; i < n; ++i) {
      float* patches = found.patches + i * this->patches();
      if (settings_.grad_cam) {
        scale_cam(outputs[kCam] + i * this->patches(), this->patches(), found.scores[i], patches);
      } else {
        *patches = found.scores[i];
      }
    }
  }

  Size grid() const override { return settings_.map_grid; }
  int64_t embedding_dims() const override { return settings_.embedding_dims; }

 private:
  const CutPasteSettings& settings_;
  kad_density density_;
};

}  // namespace

std::unique_ptr<Scorer> make_cutpaste_scorer(const Artifact& artifact) {
  return std::make_unique<CutPasteScorer>(artifact);
}

}  // namespace kad
