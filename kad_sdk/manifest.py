"""The manifest of an artifact: what every method's has, what each adds, a strict reader.

The entries are in :mod:`kad_sdk.manifest_entries`; the keys are explained in
``docs/artifact.md``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping  # noqa: TC003 - read at run time by schema.decode
from dataclasses import dataclass
from typing import Any, Literal

from kad_sdk.errors import ArtifactCorruptError, ArtifactVersionError
from kad_sdk.inspection import INSPECTION
from kad_sdk.manifest_entries import (
    FLOAT32_MAX,
    MAX_FRAME_PX,
    MAX_NEIGHBORS,
    Bank,
    BaseMapNetwork,
    Coreset,
    CutPaste,
    CutPasteGolden,
    CutPasteTolerance,
    CutPasteTraining,
    Denoise,
    Density,
    Extension,
    FileEntry,
    FileName,
    Golden,
    Graph,
    MapSettings,
    Network,
    NetworkOutput,
    PatchCore,
    PatchCoreGolden,
    Precision,
    Preprocessing,
    Text,
    Thresholds,
    Tolerance,
    Training,
    Weights,
    Windows,
)
from kad_sdk.manifest_windows import check_mode
from kad_sdk.schema import SchemaError, decode, expected
from kad_sdk.storage import strict_json

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_LIMIT_BYTES",
    "MAX_NEIGHBORS",
    "Bank",
    "BaseMapNetwork",
    "Coreset",
    "CutPaste",
    "CutPasteGolden",
    "CutPasteManifest",
    "CutPasteTolerance",
    "CutPasteTraining",
    "Denoise",
    "Density",
    "Extension",
    "FileEntry",
    "Golden",
    "Graph",
    "Manifest",
    "MapSettings",
    "Network",
    "NetworkOutput",
    "PatchCore",
    "PatchCoreGolden",
    "PatchCoreManifest",
    "Precision",
    "Preprocessing",
    "Thresholds",
    "Tolerance",
    "Training",
    "Weights",
    "Windows",
]

FORMAT = "kad-artifact"
FORMAT_VERSION = "1.3"
MANIFEST_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What every artifact says about itself; each method has a subclass with what it adds.

    `verification` holds the figures of the export's parity gate, for people to read; nothing is
    computed from it. `files` is filled by :func:`kad_sdk.artifact.write_artifact`.
    """

    method: str
    created_by: Mapping[str, Text]
    network: Network
    preprocessing: Preprocessing
    map: MapSettings
    thresholds: Thresholds
    golden: Golden
    training: Training
    verification: Mapping[str, Any]
    files: Mapping[FileName, FileEntry] = dataclasses.field(default_factory=dict)
    format_version: str = FORMAT_VERSION

    def graph_files(self) -> tuple[str, ...]:
        """Give the names of the ONNX graphs' files."""
        return (self.network.file,)

    def named_files(self) -> tuple[str, ...]:
        """Give the names of the files that the manifest's entries name."""
        return (*self.graph_files(), self.golden.file)

    def _graph(
        self, file: str, outputs: Mapping[str, tuple[int | None, ...]], side: int | None
    ) -> Graph:
        return Graph(file, self.network.input, (3, side, side), outputs)

    def _check_grid(self, key: str, grid: tuple[int, int]) -> None:
        tile = self.preprocessing.tile
        if max(grid) > tile:
            raise expected(key, f"at most {tile} x {tile}, the tile's px", grid)

    def _check_preprocessing(self) -> None:
        settings = self.preprocessing
        for i, (mean, std) in enumerate(zip(settings.mean, settings.std, strict=True)):
            if (1 + abs(mean)) / std > FLOAT32_MAX:
                wanted = "a number for which (value - mean) / std fits float32"
                raise expected(f"preprocessing.std[{i}]", wanted, std)
        if not isinstance(settings.resize, tuple):
            return
        height, width = settings.resize
        if min(height, width) < settings.tile:
            wanted = f"sides of at least a tile, {settings.tile} px"
            raise expected("preprocessing.resize", wanted, settings.resize)
        if height * width > MAX_FRAME_PX:
            raise expected(
                "preprocessing.resize", f"at most {MAX_FRAME_PX} px in all", [height, width]
            )

    def check(self) -> None:
        """Check that the values agree with each other.

        Raises
        ------
        SchemaError
            They do not; the text names the key.
        """
        self._check_preprocessing()
        denoise = self.preprocessing.denoise
        if denoise is not None and not (denoise.template_window % 2 and denoise.search_window % 2):
            raise expected("preprocessing.denoise", "odd windows", denoise)
        if INSPECTION in self.files:
            raise SchemaError(f"files: {INSPECTION} is set on site, and no manifest lists it")
        named = self.named_files()
        for name in named:
            if name not in self.files:
                raise SchemaError(f"files: {name} is not listed")
        if len({*named, "manifest.json"}) != len(named) + 1:
            raise expected("files", "a different name for each file", sorted(self.files))

    def to_json(self) -> str:
        """Write the manifest as text: sorted keys; the same manifest gives the same text."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
        return text + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "manifest.json") -> Manifest:
        """Read and check a manifest of any method; `name` is what errors call it.

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
            _upgrade(content)
            manifest: Manifest = decode(_kind(content), content, allow_unknown=newer)
            manifest.check()
        except SchemaError as error:
            raise ArtifactCorruptError(
                f"{name}: {error}: the file was changed; copy the artifact again"
            ) from error
        return manifest


@dataclass(frozen=True, kw_only=True)
class PatchCoreManifest(Manifest):
    """The manifest of a PatchCore artifact."""

    network: BaseMapNetwork
    patchcore: PatchCore
    bank: Bank
    golden: PatchCoreGolden
    method: Literal["patchcore"] = "patchcore"

    def named_files(self) -> tuple[str, ...]:  # noqa: D102 - as the base's
        given = (*super().named_files(), self.bank.file)
        return given if self.bank.index_file is None else (*given, self.bank.index_file)

    def graph(self) -> Graph:
        """Say what the network takes and gives."""
        outputs = self.network.outputs
        if self.patchcore.mode == "windows":
            maps = {o.name: (o.channels, None, None) for o in outputs}
            return self._graph(self.network.file, maps, None)
        sized = {o.name: (o.channels, o.height, o.width) for o in outputs}
        return self._graph(self.network.file, sized, self.preprocessing.tile)

    def check(self) -> None:  # noqa: D102 - as the base's
        network, bank = self.network, self.bank
        layers = len(network.layers)
        if not network.outputs or len(network.outputs) != layers:
            raise expected(
                "network.outputs", f"one for each of {layers} layers", len(network.outputs)
            )
        channels = sum(output.channels for output in network.outputs)
        if bank.dims != channels:
            raise expected("bank.dims", f"{channels}, the sum of the outputs' channels", bank.dims)
        available, used = min(MAX_NEIGHBORS, bank.rows - 1), self.patchcore.n_neighbors
        reweighting = self.patchcore.reweighting
        if reweighting != "none" and not 1 <= used <= available:
            wanted = f"1 to {available} for re-weighting {reweighting!r} with {bank.rows} rows"
            raise expected("patchcore.n_neighbors", wanted, used)
        if not bank.images:
            raise expected("bank.images", "at least one name", bank.images)
        added = sum(extension.rows for extension in bank.extended)
        if added >= bank.rows:
            raise expected("bank.extended", f"fewer rows in all than bank.rows, {bank.rows}", added)
        self._check_grid("patchcore.grid", self.patchcore.grid)
        check_mode(self.patchcore, network.outputs, self.preprocessing.tile)
        super().check()


@dataclass(frozen=True, kw_only=True)
class CutPasteManifest(Manifest):
    """The manifest of a CutPaste artifact."""

    cutpaste: CutPaste
    density: Density
    golden: CutPasteGolden
    cutpaste_training: CutPasteTraining
    method: Literal["cutpaste"] = "cutpaste"

    def graph_files(self) -> tuple[str, ...]:  # noqa: D102 - as the base's
        explain = self.cutpaste.explain_file
        return super().graph_files() if explain is None else (*super().graph_files(), explain)

    def named_files(self) -> tuple[str, ...]:  # noqa: D102 - as the base's
        return (*super().named_files(), self.density.file)

    def graph(self, *, explain: bool = False) -> Graph:
        """Say what the network takes and gives; `explain`: the graph with Grad-CAM."""
        settings, tile = self.cutpaste, self.preprocessing.tile
        outputs: dict[str, tuple[int | None, ...]] = {
            "logits": (settings.classes,),
            "embedding": (settings.embedding_dims,),
        }
        if not explain:
            return self._graph(self.network.file, outputs, tile)
        if settings.explain_file is None:
            raise ValueError("this artifact has no graph with Grad-CAM")
        outputs["cam"] = (1, *settings.map_grid)
        return self._graph(settings.explain_file, outputs, tile)

    def check(self) -> None:  # noqa: D102 - as the base's
        cutpaste, density = self.cutpaste, self.density
        if cutpaste.anomalous_class >= cutpaste.classes:
            raise expected(
                "cutpaste.anomalous_class",
                f"0 to {cutpaste.classes - 1}",
                cutpaste.anomalous_class,
            )
        if (cutpaste.map == "grad-cam") != (cutpaste.explain_file is not None):
            wanted = "a file name" if cutpaste.map == "grad-cam" else "null"
            raise expected(
                "cutpaste.explain_file",
                f"{wanted} with map {cutpaste.map!r}",
                cutpaste.explain_file,
            )
        if cutpaste.map == "tile-score" and cutpaste.map_grid != (1, 1):
            raise expected("cutpaste.map_grid", "[1, 1] with map 'tile-score'", cutpaste.map_grid)
        self._check_grid("cutpaste.map_grid", cutpaste.map_grid)
        for key, kind in (("shrinkage", "gaussian"), ("bandwidth", "kernel")):
            if (getattr(density, key) is not None) != (density.kind == kind):
                wanted = "a number" if density.kind == kind else "null"
                raise expected(
                    f"density.{key}",
                    f"{wanted} for a density of kind {density.kind!r}",
                    getattr(density, key),
                )
        super().check()


_METHODS: dict[str, type[Manifest]] = {
    "patchcore": PatchCoreManifest,
    "cutpaste": CutPasteManifest,
}


def _kind(content: Mapping[str, Any]) -> type[Manifest]:
    if "method" not in content:
        raise SchemaError("the key method is missing")
    method = content["method"]
    if not isinstance(method, str) or method not in _METHODS:
        raise expected("method", " or ".join(map(repr, _METHODS)), method)
    return _METHODS[method]


def _upgrade(content: dict[str, Any]) -> None:
    """Bring a manifest of an older minor version to this one."""
    minor = int(content["format_version"].split(".")[1])
    for entry, since, added in (
        ("bank", 1, {"index_file": None}),
        ("bank", 2, {"extended": []}),
        ("patchcore", 3, {"mode": "tiles", "windows": None}),
    ):
        if minor >= since or not isinstance(content.get(entry), dict):
            continue
        for key in added:
            if key in content[entry]:
                raise SchemaError(f"unknown key {entry}.{key}: this format version has no such key")
        content[entry] |= added
        content["format_version"] = FORMAT_VERSION


def _check_version(content: Mapping[str, Any], name: str) -> bool:
    """Refuse what this reader does not know; True when the minor version is newer than ours."""
    if content.get("format") != FORMAT:
        raise ArtifactVersionError(
            f"{name}: expected format {FORMAT!r}, got {content.get('format')!r}: this is "
            "not an artifact of kad-export"
        )
    version = content.get("format_version")
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}", version):
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
