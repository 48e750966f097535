// What the tensor files of an artifact hold, by method: the rules of kad_sdk/artifact_layout.py.
#pragma once

#include <string>

#include "runtime/manifest.hpp"
#include "runtime/tensors.hpp"

namespace kad {

TensorLayouts bank_layout(const Manifest& manifest);
TensorLayouts index_layout();
TensorLayouts density_layout(const Manifest& manifest);
TensorLayouts golden_layout(const Manifest& manifest);

/// Check that indices point into their table; `where` is what errors call the file.
void check_bank(const Tensors& bank, const Manifest& manifest, const std::string& where);

/// Check what scoring relies on: a lower triangle with a diagonal above 0, or the samples' number.
void check_density(const Tensors& density, const Manifest& manifest, const std::string& where);

}  // namespace kad
