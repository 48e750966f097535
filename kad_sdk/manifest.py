"""The manifest of an artifact: nested frozen dataclasses, and a reader that trusts nothing.

The dataclasses are the schema: each field's annotation carries its type and range, and the reader
walks them. There are no defaults, so every number that scoring uses was written by the export.
The keys are explained in ``docs/artifact.md``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping  # noqa: TC003 - read at run time by schema.decode
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kad_sdk.errors import ArtifactCorruptError, ArtifactVersionError
from kad_sdk.schema import Pattern, Range, SchemaError, decode, expected
from kad_sdk.storage import strict_json

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_LIMIT_BYTES",
    "Bank",
    "Coreset",
    "Denoise",
    "FileEntry",
    "Golden",
    "Manifest",
    "MapSettings",
    "Network",
    "NetworkOutput",
    "PatchCore",
    "Preprocessing",
    "Thresholds",
    "Tolerance",
    "Training",
    "Weights",
]

FORMAT = "kad-artifact"
FORMAT_VERSION = "1.0"
MANIFEST_LIMIT_BYTES = 16 << 20
MAX_NEIGHBORS = 8  # columns of the bank's table of neighbours


Pixels = Annotated[int, Range(1, 1 << 16)]
Count = Annotated[int, Range(1)]
Amount = Annotated[int, Range(0)]
Fraction = Annotated[float, Range(0, 1, above=True)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Text = Annotated[str, Pattern(r"[^\x00-\x1f]+", "a non-empty string without control characters")]
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

    h: NonNegative
    h_color: NonNegative
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


@dataclass(frozen=True)
class Network:
    """The ONNX graph: (B, 3, tile, tile) float32 to one base map for each layer."""

    file: FileName
    backbone: Text
    layers: tuple[Text, ...]
    weights: Weights
    opset: Count
    precision: Text
    input: Text
    outputs: tuple[NetworkOutput, ...]


@dataclass(frozen=True)
class Preprocessing:
    """From a board image to normalised tiles; lengths in px, mean and std in full-scale units."""

    tile: Pixels
    stride: Pixels
    train_stride: Pixels
    resize: tuple[Pixels, Pixels] | Factor | None
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    normalisation: Literal["dataset", "imagenet", "white", "white-with-edges"]
    denoise: Denoise | None


@dataclass(frozen=True)
class PatchCore:
    """From base maps to patch features, and from patch distances to a tile score."""

    resampling: Literal["bilinear", "adaptive-average"]
    pooling: Literal["same-bilinear", "valid-adaptive"]
    grid: tuple[Pixels, Pixels]
    reweighting: Literal["none", "thesis", "paper"]
    # Columns of the bank's table of neighbours; "paper" weighs m* itself beside them.
    n_neighbors: Annotated[int, Range(0, MAX_NEIGHBORS)]


@dataclass(frozen=True)
class MapSettings:
    """Gaussian smoothing of a tile map, px; radius 0 means none."""

    sigma: Positive
    radius: Annotated[int, Range(0, 1024)]


@dataclass(frozen=True)
class Coreset:
    """How the bank was selected; `eps` and `projected_dims` are None without a projection."""

    method: Text
    fraction: Fraction
    max_rows: Count | None
    eps: Fraction | None
    projected_dims: Count | None
    candidates: Count
    seed: Amount
    radius: NonNegative


@dataclass(frozen=True)
class Bank:
    """The memory bank: (rows, dims) float32, and the images its rows came from."""

    file: FileName
    rows: Count
    dims: Count
    images: tuple[Text, ...]
    coreset: Coreset


@dataclass(frozen=True)
class Thresholds:
    """What counts as anomalous: tile score >= `tile`, map value >= `map`.

    `board` says which of the two decides a board. The scales are those of the normalised scores.
    """

    board: Literal["map-peak", "largest-tile"]
    tile: Positive
    tile_scale: Positive
    map: Positive
    map_scale: Positive
    method: Text
    samples: Amount
    min_region_area_px: Count


@dataclass(frozen=True)
class Tolerance:
    """Allowed largest absolute difference over the largest absolute value."""

    base_map: Positive
    score: Positive


@dataclass(frozen=True)
class Golden:
    """Real tiles with what they must score."""

    file: FileName
    count: Count
    tolerance: Tolerance


@dataclass(frozen=True)
class Training:
    """What the artifact was fitted on."""

    layout: Literal["mvtec", "boards", "folder"]
    images: Count
    tiles: Count
    fingerprint: Digest


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of a file."""

    size: Amount
    sha256: Digest


@dataclass(frozen=True)
class Manifest:
    """All that an artifact says about itself.

    `verification` holds the figures of the export's parity gate, for people to read; nothing is
    computed from it. `files` is filled by :func:`kad_sdk.artifact.write_artifact`.
    """

    created_by: Mapping[str, Text]
    network: Network
    preprocessing: Preprocessing
    patchcore: PatchCore
    map: MapSettings
    bank: Bank
    thresholds: Thresholds
    golden: Golden
    training: Training
    verification: Mapping[str, Any]
    files: Mapping[FileName, FileEntry] = dataclasses.field(default_factory=dict)
    format_version: str = FORMAT_VERSION
    method: Literal["patchcore"] = "patchcore"

    def to_json(self) -> str:
        """Write the manifest as text: sorted keys; the same manifest gives the same text."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "manifest.json") -> Manifest:
        """Read and check a manifest; `name` is what errors call it.

        Raises
        ------
        ArtifactVersionError
            The format is not ours, or its major version is newer.
        ArtifactCorruptError
            Not strict JSON, a key missing or unknown, a value of the wrong type or out of range,
            or values that contradict each other. The text names the key.
        """
        data = text.encode() if isinstance(text, str) else text
        try:
            content = strict_json(data, limit=MANIFEST_LIMIT_BYTES)
        except ValueError as error:
            raise ArtifactCorruptError(f"{name}: {error}; copy the artifact again") from error
        if not isinstance(content, dict):
            raise ArtifactCorruptError(f"{name}: expected a JSON object; copy the artifact again")
        newer = _check_version(content, name)
        del content["format"]
        try:
            manifest: Manifest = decode(cls, content, allow_unknown=newer)
            _check_consistency(manifest)
        except SchemaError as error:
            raise ArtifactCorruptError(
                f"{name}: {error}: the file was changed; copy the artifact again"
            ) from error
        return manifest


def _check_version(content: Mapping[str, Any], name: str) -> bool:
    """Refuse what this reader does not know; True when the minor version is newer than ours."""
    if content.get("format") != FORMAT:
        raise ArtifactVersionError(
            f"{name}: expected format {FORMAT!r}, got {content.get('format')!r}: this is "
            "not an artifact of kad-export"
        )
    version = content.get("format_version")
    if not isinstance(version, str) or not re.fullmatch(r"\d{1,4}\.\d{1,4}", version):
        raise ArtifactCorruptError(
            f"{name}: format_version: expected 'major.minor', got {version!r}"
        )
    major, minor = map(int, version.split("."))
    own_major, own_minor = map(int, FORMAT_VERSION.split("."))
    if major != own_major:
        advice = "upgrade kad-sdk" if major > own_major else "export the artifact again"
        raise ArtifactVersionError(
            f"{name}: format version {version} cannot be read by this version of kad-sdk, "
            f"which reads {own_major}.x: {advice}"
        )
    return minor > own_minor


def _check_consistency(manifest: Manifest) -> None:
    """Values that must agree with each other."""
    network, patchcore, bank = manifest.network, manifest.patchcore, manifest.bank
    if not network.outputs or len(network.outputs) != len(network.layers):
        raise expected(
            "network.outputs", f"one for each of {len(network.layers)} layers", len(network.outputs)
        )
    channels = sum(output.channels for output in network.outputs)
    if bank.dims != channels:
        raise expected("bank.dims", f"{channels}, the sum of the outputs' channels", bank.dims)
    available = min(MAX_NEIGHBORS, bank.rows - 1)
    if patchcore.reweighting != "none" and not 1 <= patchcore.n_neighbors <= available:
        raise expected(
            "patchcore.n_neighbors",
            f"1 to {available} for re-weighting {patchcore.reweighting!r} with {bank.rows} rows",
            patchcore.n_neighbors,
        )
    denoise = manifest.preprocessing.denoise
    if denoise is not None and not (denoise.template_window % 2 and denoise.search_window % 2):
        raise expected("preprocessing.denoise", "odd windows", denoise)
    if not bank.images:
        raise expected("bank.images", "at least one name", bank.images)
    for name in (network.file, bank.file, manifest.golden.file):
        if name not in manifest.files:
            raise SchemaError(f"files: {name} is not listed")
    if len({network.file, bank.file, manifest.golden.file, "manifest.json"}) != 4:
        raise expected("files", "four different file names", sorted(manifest.files))
