"""Score a board by both doors, and compare everything that they give, bit for bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnxruntime
import programs
import pytest

from kad_sdk import Annotation, Detector
from kad_sdk._native import preprocess
from kad_sdk.artifact import Artifact
from kad_sdk.errors import InvalidArgumentError
from kad_sdk.prepare import prepare_image

if TYPE_CHECKING:
    from pathlib import Path

    from kad_sdk.annotations import Rect

# By the values of KAD_PIXEL_*.
FORMATS = ("grey8", "rgb8", "bgr8", "rgba8", "bgra8", "grey16", "rgb16", "bgr16")


class Case(NamedTuple):
    """An artifact and how a board is scored with it."""

    artifact: str = ""
    size: tuple[int, int] = (96, 141)
    pixel_format: str = "rgb8"
    padding: int = 0  # bytes after each row
    threads: int = 1
    batch: int = 16
    maps: bool = True
    borders: tuple[Rect, ...] = ()
    labels: tuple[Rect, ...] = ()

    @property
    def named_format(self) -> str | None:
        """What Python has to be told: it knows the others by dtype and shape."""
        return self.pixel_format if self.pixel_format.startswith("bgr") else None


def with_padding(pixels: np.ndarray, padding: int) -> np.ndarray:
    """Give the same image as a view of rows that have so many more bytes each."""
    packed = np.ascontiguousarray(pixels)
    rows = packed.reshape(len(packed), -1).view(np.uint8)
    padded = np.full((len(rows), rows.shape[1] + padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    strides = (padded.shape[1], *packed.strides[1:])
    return np.ndarray(packed.shape, packed.dtype, padded, strides=strides)


def corners(size: tuple[int, ...], tile: int) -> np.ndarray:
    """Give corners of tiles (n, 2) that no board would be cut into, one of them twice."""
    height, width = size[0] - tile, size[1] - tile
    places = [(0, 0), (width, height), (width // 2, height // 3), (1, 1), (0, 0)]
    return np.array(places, np.int32)


def denoised(case: Case, artifact: Path, image: np.ndarray, folder: Path) -> dict[str, str]:
    """Write the frame before and after denoising, which libkad asks its caller to do."""
    settings = Artifact.open(artifact).manifest.preprocessing
    if settings.denoise is None:
        return {}
    for name, denoise in (("from.bin", None), ("to.bin", settings.denoise)):
        frame = prepare_image(
            image,
            resize=settings.resize,
            denoise=denoise,
            pixel_format=case.named_format,
            threads=case.threads,
        )
        np.ascontiguousarray(frame).tofile(folder / name)
    return {"DENOISE_FROM": str(folder / "from.bin"), "DENOISE_TO": str(folder / "to.bin")}


def with_c(case: Case, artifact: Path, image: np.ndarray, folder: Path) -> dict[str, Any]:
    """Score in a process without Python; tiles alone, too, where the artifact scores those."""
    tile = tile_of(artifact)
    image.base.tofile(folder / "pixels.bin")
    words = [("border", *rect) for rect in case.borders]
    words += [("label", *rect) for rect in case.labels]
    if not in_windows(artifact):
        words += [("tile", x, y, tile, tile) for x, y in corners(image.shape, tile)]
    return run_c(case, artifact, image, folder, words)


def run_c(
    case: Case, artifact: Path, image: np.ndarray, folder: Path, words: list[Any]
) -> dict[str, Any]:
    """Run the program; `words` are its rectangles."""
    result = programs.run(
        programs.program("test", "score_board"),
        *(
            artifact,
            folder / "pixels.bin",
            FORMATS.index(case.pixel_format),
            *image.shape[:2],
            image.strides[0],
        ),
        *(case.threads, case.batch, int(not case.maps), folder / "map.bin"),
        *(word for rectangle in words for word in rectangle),
        KAD_ONNXRUNTIME=programs.onnxruntime_library(),
        **denoised(case, artifact, image, folder),
    )
    found = json.loads(result.stdout)
    if found["map"]:
        found["map"] = np.fromfile(folder / "map.bin", np.float32).reshape(image.shape[:2])
    return found


def tile_of(artifact: Path) -> int:
    return json.loads((artifact / "manifest.json").read_text())["preprocessing"]["tile"]


def in_windows(artifact: Path) -> bool:
    settings = json.loads((artifact / "manifest.json").read_text()).get("patchcore", {})
    return settings.get("mode") == "windows"


def opened(case: Case, artifact: Path) -> Detector:
    return Detector.open(artifact, threads=case.threads, batch=case.batch, maps=case.maps)


def with_python(case: Case, artifact: Path, image: np.ndarray) -> Any:
    with opened(case, artifact) as detector:
        annotation = Annotation(case.borders, case.labels)
        return detector.score(image, annotation, pixel_format=case.named_format)


def tiles_with_python(case: Case, artifact: Path, image: np.ndarray) -> Any:
    """Score tiles without a board."""
    with opened(case, artifact) as detector:
        settings = detector.artifact.manifest.preprocessing
        tiles = preprocess(
            image,
            corners(image.shape, settings.tile),
            tile=settings.tile,
            mean=settings.mean,
            std=settings.std,
            pixel_format=case.named_format,
        )
        return detector._scorer.score_tiles(tiles)


def check(case: Case, artifact: Path, pixels: np.ndarray, folder: Path) -> None:
    """Assert that both doors give the same for a board, and for tiles without one."""
    image = with_padding(pixels, case.padding)
    c, python = with_c(case, artifact, image, folder), with_python(case, artifact, image)
    assert c["onnxruntime"] == onnxruntime.__version__
    assert same(c["score"], python.score)
    assert same(c["normalised_score"], python.normalised_score)
    assert c["anomalous"] == python.anomalous
    thresholds = (python.threshold, python.tile_threshold, python.map_threshold)
    assert all(map(same, c["thresholds"], thresholds))
    assert tuple(c["image_size"]) == python.image_size
    assert tuple(c["frame_size"]) == python.frame_size
    assert same(c["scored_share"], -1 if python.scored_share is None else python.scored_share)
    assert len(c["tiles"]) == len(python.tiles) > 0
    assert bool(c["has_rules"]) == bool(python.rules)
    assert c["precision"] == Artifact.open(artifact).manifest.network.precision
    for row, tile in zip(c["tiles"], python.tiles, strict=True):
        x, y, score, normalised, anomalous, factor = row
        assert (x, y, bool(anomalous)) == (tile.x, tile.y, tile.anomalous)
        assert same(score, tile.score)
        assert same(normalised, tile.normalised_score)
        assert same(factor, tile.factor)
    check_regions(c["regions"], python.regions)
    check_floats(c["embeddings"], python.embeddings)
    if case.maps:
        np.testing.assert_array_equal(c["map"].view(np.uint32), python.map.view(np.uint32))
    else:
        assert c["map"] is False
        assert python.map is None
    if in_windows(artifact):
        check_tiles_are_refused(case, artifact, image, folder)
        return
    found = tiles_with_python(case, artifact, image)
    check_floats(c["own_scores"], found.scores)
    check_floats(c["own_patches"], found.patches)
    assert c["own_rows"] == ([] if found.rows is None else found.rows.reshape(-1).tolist())


def check_tiles_are_refused(case: Case, artifact: Path, image: np.ndarray, folder: Path) -> None:
    """Assert that neither door scores tiles without a board."""
    match = "scores boards in windows, not .*tiles without what surrounds them"
    with pytest.raises(InvalidArgumentError, match=match):
        tiles_with_python(case, artifact, image)
    with pytest.raises(AssertionError, match=match):
        run_c(case, artifact, image, folder, [("tile", 0, 0, 32, 32)])


def same(text: str, value: float) -> bool:
    return float.fromhex(text).hex() == float(value).hex()


def check_floats(texts: list[str], expected: np.ndarray | None) -> None:
    flat = np.float32([float.fromhex(text) for text in texts])
    wanted = np.float32([]) if expected is None else expected.reshape(-1)
    np.testing.assert_array_equal(flat.view(np.uint32), wanted.view(np.uint32))


def check_regions(found: list[list[Any]], regions: tuple[Any, ...]) -> None:
    assert len(found) == len(regions)
    for row, region in zip(found, regions, strict=True):
        x, y, width, height, area, peak, peak_x, peak_y, distance, nearest = row
        box = (region.x, region.y, region.width, region.height)
        assert (x, y, width, height, area) == (*box, region.area_px)
        assert (peak_x, peak_y) == region.peak_xy
        assert same(peak, region.peak)
        assert same(distance, region.distance)
        if region.nearest is None:
            assert nearest is None
        else:
            assert tuple(nearest) == (region.nearest.image, region.nearest.x, region.nearest.y)
