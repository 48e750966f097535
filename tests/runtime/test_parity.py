"""Both doors give the same: scores, regions and maps are equal bit for bit."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import programs
import pytest
import tiny_artifacts as tiny

from kad_sdk import Annotation, Detector
from kad_sdk.annotations import Rect

FORMATS = {"grey8": 0, "rgb8": 1, "bgr8": 2, "rgba8": 3, "bgra8": 4, "grey16": 5, "rgb16": 6}


class Case(NamedTuple):
    """An artifact and how a board is scored with it."""

    artifact: str
    size: tuple[int, int] = (96, 141)
    pixel_format: str = "rgb8"
    padding: int = 0  # bytes after each row
    threads: int = 1
    batch: int = 16
    maps: bool = True
    borders: tuple[Rect, ...] = ()
    labels: tuple[Rect, ...] = ()


ARTIFACTS = {
    "bilinear": lambda: tiny.patchcore("same-bilinear", "thesis", 3),
    "adaptive": lambda: tiny.patchcore("valid-adaptive", "paper", 5),
    "plain": lambda: tiny.patchcore("same-bilinear", "none", 0, board="largest-tile"),
    "half": lambda: tiny.patchcore(resize=0.5),
    "enlarged": lambda: tiny.patchcore("valid-adaptive", resize=1.37),
    "fixed-size": lambda: tiny.patchcore(resize=(90, 140), stride=11),
    "grad-cam": lambda: tiny.cutpaste("gaussian", "grad-cam"),
    "grad-cam-kernel": lambda: tiny.cutpaste("kernel", "grad-cam", board="largest-tile"),
    "tile-score": lambda: tiny.cutpaste("gaussian", "tile-score", resize=0.7),
    "quiet": lambda: tiny.patchcore(threshold=1e6),
}
BORDERS = (Rect(3, 5, 70, 60), Rect(60, 40, 81, 56))
LABELS = (Rect(20, 20, 9, 11), Rect(100, 50, 5, 5))
CASES = [
    *(Case(name) for name in ARTIFACTS),
    *(Case("bilinear", threads=threads, batch=batch) for threads in (2, 3) for batch in (1, 7)),
    *(Case("grad-cam", threads=threads, batch=5) for threads in (2, 4)),
    *(Case("bilinear", pixel_format=name, padding=2 * i) for i, name in enumerate(FORMATS)),
    *(Case("half", size=(201, 303), pixel_format=name, padding=6) for name in ("grey16", "bgra8")),
    Case("bilinear", borders=BORDERS, labels=LABELS),
    Case("half", size=(201, 303), borders=tuple(Rect(*(2 * v for v in r)) for r in BORDERS)),
    Case("enlarged", labels=LABELS),
    Case("grad-cam", borders=BORDERS[:1], labels=LABELS, threads=2),
    Case("plain", maps=False),
    Case("grad-cam-kernel", maps=False),
]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    return {name: tiny.write(folder / f"{name}.kad", make()) for name, make in ARTIFACTS.items()}


def pixels_of(case: Case) -> np.ndarray:
    """Give the case's board in its pixel format."""
    rgb = tiny.board(7, *case.size)
    grey = rgb[..., 1]
    if case.pixel_format.endswith("16"):
        noise = np.random.default_rng(tiny.SEED).integers(0, 256, rgb.shape)
        rgb = (rgb.astype(np.uint16) << 8) | noise.astype(np.uint16)
        grey = rgb[..., 1]
    alpha = np.full((*case.size, 1), 77, rgb.dtype)
    return {
        "grey": grey,
        "rgb": rgb,
        "bgr": rgb[..., ::-1],
        "rgba": np.concatenate([rgb, alpha], axis=-1),
        "bgra": np.concatenate([rgb[..., ::-1], alpha], axis=-1),
    }[case.pixel_format.rstrip("0123456789")]


def with_c(case: Case, artifact, folder) -> dict[str, Any]:
    """Score in a process without Python, from rows with padding."""
    pixels = np.ascontiguousarray(pixels_of(case))
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    padded = np.full((len(rows), rows.shape[1] + case.padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    padded.tofile(folder / "pixels.bin")
    rectangles = [
        word
        for kind, rects in (("border", case.borders), ("label", case.labels))
        for rect in rects
        for word in (kind, *rect)
    ]
    result = programs.run(
        programs.program("test", "score_board"),
        *(artifact, folder / "pixels.bin", FORMATS[case.pixel_format], *case.size),
        *(padded.shape[1], case.threads, case.batch, int(not case.maps), folder / "map.bin"),
        *rectangles,
        KAD_ONNXRUNTIME=programs.onnxruntime_library(),
    )
    found = json.loads(result.stdout)
    if found["map"]:
        found["map"] = np.fromfile(folder / "map.bin", np.float32).reshape(case.size)
    return found


def with_python(case: Case, artifact) -> Any:
    pixels = pixels_of(case)
    annotation = Annotation(case.borders, case.labels)
    options = {"threads": case.threads, "batch": case.batch, "maps": case.maps}
    named = case.pixel_format if case.pixel_format.startswith("bgr") else None
    with Detector.open(artifact, **options) as detector:
        return detector.score(pixels, annotation, pixel_format=named)


def same(text: str, value: float) -> bool:
    return float.fromhex(text).hex() == float(value).hex()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:6])))
def test_equal(case, artifacts, tmp_path):
    artifact = artifacts[case.artifact]
    c, python = with_c(case, artifact, tmp_path), with_python(case, artifact)
    assert c["onnxruntime"] == onnxruntime.__version__
    assert same(c["score"], python.score)
    assert same(c["normalised_score"], python.normalised_score)
    assert c["anomalous"] == python.anomalous
    thresholds = (python.threshold, python.tile_threshold, python.map_threshold)
    assert all(map(same, c["thresholds"], thresholds))
    assert tuple(c["image_size"]) == python.image_size
    assert tuple(c["frame_size"]) == python.frame_size
    assert len(c["tiles"]) == len(python.tiles) > 0
    for (x, y, score, normalised, anomalous), tile in zip(c["tiles"], python.tiles, strict=True):
        assert (x, y, bool(anomalous)) == (tile.x, tile.y, tile.anomalous)
        assert same(score, tile.score)
        assert same(normalised, tile.normalised_score)
    check_regions(c["regions"], python.regions)
    if python.embeddings is not None:
        flat = [float.fromhex(value) for value in c["embeddings"]]
        np.testing.assert_array_equal(np.float32(flat), python.embeddings.reshape(-1))
    if case.maps:
        np.testing.assert_array_equal(c["map"].view(np.uint32), python.map.view(np.uint32))
    else:
        assert c["map"] is False
        assert python.map is None


def check_regions(found, regions):
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


def test_the_cases_show_something(artifacts):
    """Among the cases are boards of either verdict, and with several regions."""
    results = [with_python(case, artifacts[case.artifact]) for case in CASES[: len(ARTIFACTS)]]
    assert {result.verdict for result in results} == {"normal", "anomalous"}
    assert max(len(result.regions) for result in results) >= 2
    bordered = [with_python(case, artifacts[case.artifact]) for case in CASES if case.borders]
    assert all(np.isnan(result.map).any() for result in bordered)
