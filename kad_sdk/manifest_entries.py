"""The entries of a manifest as nested frozen dataclasses.

The dataclasses are the schema: each field's annotation carries its type and range, which
:func:`kad_sdk.schema.decode` checks. It fills in no defaults, so every number that scoring uses was
written by the export. The keys are explained in ``docs/artifact.md``.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - read at run time by schema.decode
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kad_sdk.schema import Pattern, Range

__all__ = [
    "FLOAT32_MAX",
    "FLOAT32_TINY",
    "MAX_FRAME_PX",
    "MAX_NEIGHBORS",
    "Bank",
    "BaseMapNetwork",
    "Coreset",
    "CutPaste",
    "CutPasteGolden",
    "CutPasteTolerance",
    "CutPasteTraining",
    "Denoise",
    "Density",
    "Extension",
    "FileEntry",
    "FileName",
    "Golden",
    "Graph",
    "MapSettings",
    "Network",
    "NetworkOutput",
    "PatchCore",
    "PatchCoreGolden",
    "Precision",
    "Preprocessing",
    "Text",
    "Thresholds",
    "Tolerance",
    "Training",
    "Weights",
    "Windows",
]

MAX_NEIGHBORS = 8  # columns of the bank's table of neighbours

MAX_FRAME_PX = 1 << 28  # of a board that `preprocessing.resize` makes
FLOAT32_MAX, FLOAT32_TINY = (2 - 2**-23) * 2.0**127, 2.0**-126

Pixels = Annotated[int, Range(1, 1 << 16)]
TilePixels = Annotated[int, Range(1, 1 << 15)]  # the compiled stages' largest tile
# What stays a finite number, or one above 0, when it becomes a float32.
Float32 = Annotated[float, Range(-FLOAT32_MAX, FLOAT32_MAX)]
PositiveFloat32 = Annotated[float, Range(FLOAT32_TINY, FLOAT32_MAX)]
Strength = Annotated[float, Range(0, FLOAT32_MAX)]
Count = Annotated[int, Range(1, 2**63 - 1)]
Amount = Annotated[int, Range(0, 2**63 - 1)]
Fraction = Annotated[float, Range(0, 1, above=True)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Text = Annotated[
    str,
    Pattern(r"[^\x00-\x1f\ud800-\udfff]+", "a non-empty string without control characters"),
]
Factor = Annotated[float, Range(0, 8, above=True)]
Digest = Annotated[str, Pattern(r"[0-9a-f]{64}", "64 hexadecimal digits")]
FileName = Annotated[
    str,
    Pattern(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}",
        "a plain file name of letters, digits, '_', '-' and '.', not beginning with '.'",
    ),
]


@dataclass(frozen=True)
class Denoise:
    """Settings of OpenCV's ``fastNlMeansDenoisingColored``; windows are odd numbers of px."""

    h: Strength
    h_color: Strength
    template_window: Pixels
    search_window: Pixels


@dataclass(frozen=True)
class Weights:
    """Where the network's weights came from."""

    source: Literal["imagenet", "file", "random"]
    name: Text
    sha256: Digest | None


@dataclass(frozen=True)
class NetworkOutput:
    """One base map: (B, channels, height, width)."""

    name: Text
    channels: Pixels
    height: Pixels
    width: Pixels


Precision = Literal["fp32", "fp16", "int8"]
"""What a graph computes in; it takes and gives float32 all the same."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The ONNX graph that takes tiles (B, 3, tile, tile) float32 as `input`."""

    file: FileName
    backbone: Text
    weights: Weights
    opset: Count
    precision: Precision
    input: Text


@dataclass(frozen=True, kw_only=True)
class BaseMapNetwork(Network):
    """PatchCore's graph: one base map for each layer."""

    layers: tuple[Text, ...]
    outputs: tuple[NetworkOutput, ...]


@dataclass(frozen=True)
class Graph:
    """What an ONNX graph must take and give: names in order, and shapes without the batch.

    A side that is None is dynamic.
    """

    file: str
    input: str
    input_shape: tuple[int | None, ...]
    outputs: Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class Preprocessing:
    """From a board image to normalised tiles; lengths in px, mean and std in full-scale units."""

    tile: TilePixels
    stride: Pixels
    train_stride: Pixels
    resize: tuple[Pixels, Pixels] | Factor | None
    mean: tuple[Float32, Float32, Float32]
    std: tuple[PositiveFloat32, PositiveFloat32, PositiveFloat32]
    normalisation: Literal["dataset", "imagenet", "white", "white-with-edges"]
    denoise: Denoise | None


@dataclass(frozen=True)
class Windows:
    """How a board is cut into windows; lengths in px.

    No window has more pixels than a square one, which has sides of `window_px` without its halo.
    Cells of the coarsest layer have
    sides of `align_px`, of the finest, the patches, `patch_px`. What is nearer than
    `label_margin_px` to a label has no value.
    """

    window_px: Pixels
    halo_px: Annotated[int, Range(0, 1 << 15)]
    align_px: Pixels
    patch_px: Pixels
    label_margin_px: Annotated[int, Range(0, 1 << 15)]


@dataclass(frozen=True)
class PatchCore:
    """From base maps to patch features, and from patch distances to a tile score."""

    resampling: Literal["bilinear", "adaptive-average", "aligned-bilinear"]
    pooling: Literal["same-bilinear", "valid-adaptive"]
    grid: tuple[Pixels, Pixels]
    reweighting: Literal["none", "thesis", "paper"]
    # Columns of the bank's table of neighbours; "paper" weighs m* itself beside them.
    n_neighbors: Annotated[int, Range(0, MAX_NEIGHBORS)]
    # How boards go through the network; an artifact is never scored in the other mode.
    mode: Literal["tiles", "windows"] = "tiles"
    windows: Windows | None = None


@dataclass(frozen=True)
class MapSettings:
    """Gaussian smoothing of a tile map, px; radius 0 means none."""

    sigma: PositiveFloat32
    radius: Annotated[int, Range(0, 1024)]


@dataclass(frozen=True)
class Coreset:
    """How the bank was selected; `eps` and `projected_dims` are None without a projection.

    `radius`, `separation` and `ratio` are its certificate: no candidate, but for the `trimmed`
    farthest, is farther than `radius` from the bank, and no bank of as many rows could bring that
    below `separation` / 2. The last two are None when every candidate is in the bank or trimmed.
    """

    method: Text
    fraction: Fraction
    max_rows: Count | None
    eps: Fraction | None
    projected_dims: Count | None
    points: Literal["float32", "float16"]
    candidates: Count
    trimmed: Amount
    seed: Amount
    radius: NonNegative
    separation: NonNegative | None
    ratio: NonNegative | None


@dataclass(frozen=True)
class Extension:
    """What was added to a bank later: its last rows, from its last images.

    `parent` is the SHA-256 of the manifest that it was added to; none of the `candidates`, the
    patches of those images, is farther than `radius` from its nearest row.
    """

    parent: Digest
    rows: Count
    images: Count
    candidates: Count
    radius: NonNegative


@dataclass(frozen=True)
class Bank:
    """The memory bank: (rows, dims) float32, and the images its rows came from.

    `index_file` holds the index of the search, where one is stored; `extended` tells what was
    added, oldest first.
    """

    file: FileName
    rows: Count
    dims: Count
    images: tuple[Text, ...]
    coreset: Coreset
    index_file: FileName | None = None
    extended: tuple[Extension, ...] = ()


@dataclass(frozen=True)
class Thresholds:
    """What counts as anomalous: tile score >= `tile`, map value >= `map`.

    `board` says which of the two decides a board. The scales are those of the normalised scores.
    """

    board: Literal["map-peak", "largest-tile"]
    tile: PositiveFloat32
    tile_scale: Positive
    map: PositiveFloat32
    map_scale: Positive
    method: Text
    samples: Amount
    min_region_area_px: Count


@dataclass(frozen=True)
class Golden:
    """Real tiles with what they must score."""

    file: FileName
    count: Count


@dataclass(frozen=True)
class Tolerance:
    """Allowed largest absolute difference over the largest absolute value."""

    base_map: Positive
    score: Positive


@dataclass(frozen=True)
class PatchCoreGolden(Golden):
    """Golden tiles with base maps, patch distances and scores."""

    tolerance: Tolerance


@dataclass(frozen=True)
class CutPasteTolerance:
    """As :class:`Tolerance`; `network` is that of logits and embedding, `cam` of Grad-CAM."""

    network: Positive
    cam: Positive
    score: Positive


@dataclass(frozen=True)
class CutPasteGolden(Golden):
    """Golden tiles with logits, embedding, Grad-CAM where there is a graph of it, and scores."""

    tolerance: CutPasteTolerance


@dataclass(frozen=True)
class Training:
    """What the artifact was fitted on."""

    layout: Literal["mvtec", "boards", "folder"]
    images: Count
    tiles: Count
    fingerprint: Digest


@dataclass(frozen=True)
class CutPaste:
    """What CutPasteNet gives, and which map a tile gets.

    `explain_file` is the graph that gives Grad-CAM beside the rest; None for ``"tile-score"``,
    where a tile's map is its score. `map_grid` is (height, width) of a tile's map.
    """

    classes: Literal[2, 3]
    embedding_dims: Pixels
    anomalous_class: Annotated[int, Range(0, 2)]
    map: Literal["grad-cam", "tile-score"]
    explain_file: FileName | None
    map_grid: tuple[Pixels, Pixels]


@dataclass(frozen=True)
class Density:
    """Where the normal embeddings lie: fitted on `samples` of them.

    `shrinkage` belongs to the Gaussian, `bandwidth` to the kernel density.
    """

    kind: Literal["gaussian", "kernel"]
    file: FileName
    samples: Count
    shrinkage: Annotated[float, Range(0, 1)] | None
    bandwidth: PositiveFloat32 | None


@dataclass(frozen=True)
class CutPasteTraining:
    """How CutPasteNet was trained: facts for people, and for doing it again.

    `augmentation` holds the scheme's name and its parameters.
    """

    epochs: Count
    best_epoch: Amount
    steps: Count
    batch: Count
    optimizer: Text
    learning_rate: Positive
    seed: Amount
    augmentation: Mapping[str, Any]
    validation_accuracy: Annotated[float, Range(0, 1)] | None
    checkpoint_sha256: Digest


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of a file."""

    size: Amount
    sha256: Digest
