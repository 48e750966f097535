// PatchCore: exact search in the memory bank.
#include <memory>
#include <vector>

#include "runtime/scorer.hpp"
#include "runtime/stage.hpp"

namespace kad {
namespace {

struct CloseIndex {
  void operator()(kad_index* index) const { kad_index_close(index); }
};

class PatchCoreScorer : public Scorer {
 public:
  PatchCoreScorer(const Artifact& artifact, int32_t n_threads)
      : settings_(artifact.manifest.patchcore), neighbors_(artifact.bank.at("neighbors")) {
    for (const GraphOutput& output : settings_.outputs) {
      channels_.push_back(static_cast<int32_t>(output.channels));
      heights_.push_back(static_cast<int32_t>(output.height));
      widths_.push_back(static_cast<int32_t>(output.width));
    }
    index_.reset(open_index(artifact, n_threads));
  }

  void score(float* const* outputs, int64_t n, int32_t n_threads,
             const Findings& found) const override {
    const kad_base_maps maps = base_maps(outputs, n);
    const kad_score_options options = score_options();
    check_stage(kad_score_tiles(index_.get(), &maps, &options, n_threads, found.patches, found.rows,
                                found.scores));
  }

  void score_window(kad_windows* board, int64_t i, Size seen, float* const* outputs,
                    const std::vector<Size>& sizes, int32_t n_threads) const override {
    kad_base_maps maps = base_maps(outputs, 1);
    std::vector<int32_t> heights, widths;
    for (const Size& size : sizes) {
      heights.push_back(size.height);
      widths.push_back(size.width);
    }
    const int32_t patch = settings_.windows->patch;
    maps.grid_height = (seen.height - 1) / patch + 1;
    maps.grid_width = (seen.width - 1) / patch + 1;
    maps.heights = heights.data();
    maps.widths = widths.data();
    const kad_score_options options = score_options();
    check_stage(kad_windows_score(board, i, index_.get(), &maps, &options, n_threads));
  }

  Size grid() const override { return settings_.grid; }
  int64_t embedding_dims() const override { return 0; }

 private:
  // As it was stored, or built from the bank.
  kad_index* open_index(const Artifact& artifact, int32_t n_threads) const {
    const Tensor& bank = artifact.bank.at("bank");
    const kad_base_maps layout = base_maps(nullptr, 0);
    kad_index* index = nullptr;
    if (artifact.index.empty()) {
      check_stage(
          kad_index_create_for_maps(bank.floats(), bank.shape[0], &layout, n_threads, &index));
      return index;
    }
    const Tensor& stored = artifact.index.at("index");
    const BankSettings& settings = artifact.manifest.bank;
    const std::string& digest = artifact.manifest.files.at(settings.file).sha256;
    const kad_status status =
        kad_index_create_stored(bank.floats(), bank.shape[0], &layout, digest.c_str(), stored.data,
                                stored.count(), n_threads, &index);
    if (status == KAD_ERROR_ARTIFACT_TENSORS) {
      const std::string why = kad_last_error();
      fail(status, "%s/%s: %s", artifact.path.c_str(), settings.index_file.c_str(), why.c_str());
    }
    check_stage(status);
    return index;
  }

  kad_score_options score_options() const {
    kad_score_options options = {};
    options.struct_size = sizeof(options);
    options.reweighting = settings_.reweighting;
    options.neighbors = neighbors_.longs();
    options.neighbor_columns = neighbors_.shape[1];
    options.n_neighbors = settings_.n_neighbors;
    return options;
  }

  kad_base_maps base_maps(const float* const* data, int64_t n) const {
    kad_base_maps maps = {};
    maps.struct_size = sizeof(maps);
    maps.resampling = settings_.resampling;
    maps.grid_height = settings_.grid.height;
    maps.grid_width = settings_.grid.width;
    maps.n_tiles = n;
    maps.n_layers = static_cast<int64_t>(channels_.size());
    maps.data = data;
    maps.channels = channels_.data();
    maps.heights = heights_.data();
    maps.widths = widths_.data();
    return maps;
  }

  const PatchCoreSettings& settings_;
  const Tensor& neighbors_;
  std::vector<int32_t> channels_;
  std::vector<int32_t> heights_;
  std::vector<int32_t> widths_;
  std::unique_ptr<kad_index, CloseIndex> index_;
};

}  // namespace

void Scorer::score_window(kad_windows*, int64_t, Size, float* const*, const std::vector<Size>&,
                          int32_t) const {
  fail(KAD_ERROR_INTERNAL, "this method does not score in windows");
}

std::unique_ptr<Scorer> make_patchcore_scorer(const Artifact& artifact, int32_t n_threads) {
  return std::make_unique<PatchCoreScorer>(artifact, n_threads);
}

}  // namespace kad
