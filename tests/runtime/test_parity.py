"""Both doors give the same: scores, regions and maps are equal bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import parity
import pytest
import tiny_artifacts as tiny
from hostile_inspection import write as set_on_site
from parity import FORMATS, Case

from kad_sdk.annotations import Rect
from kad_sdk.errors import AnnotationError
from kad_sdk.manifest import Denoise
from kad_sdk.rules import Rules, RulesEntry, Zone

ARTIFACTS = {
    "bilinear": lambda: tiny.patchcore("same-bilinear", "thesis", 3),
    "adaptive": lambda: tiny.patchcore("valid-adaptive", "paper", 5),
    "plain": lambda: tiny.patchcore("same-bilinear", "none", 0, board="largest-tile"),
    "indexed": tiny.indexed,
    "indexed-adaptive": lambda: tiny.indexed("valid-adaptive"),
    "half": lambda: tiny.patchcore(resize=0.5),
    "enlarged": lambda: tiny.patchcore("valid-adaptive", resize=1.37),
    "fixed-size": lambda: tiny.patchcore(resize=(90, 140), stride=11),
    "denoised": lambda: tiny.patchcore(denoise=Denoise(3.0, 4.0, 7, 21), resize=0.5),
    "fp16": lambda: tiny.patchcore(precision="fp16"),
    "int8": lambda: tiny.patchcore(precision="int8"),
    "grad-cam": lambda: tiny.cutpaste("gaussian", "grad-cam"),
    "grad-cam-kernel": lambda: tiny.cutpaste("kernel", "grad-cam", board="largest-tile"),
    "tile-score": lambda: tiny.cutpaste("gaussian", "tile-score", resize=0.7),
    "windows": tiny.windows,
    "windows-half": lambda: tiny.windows(24, resize=0.5, stride=11),
    "windows-plain": lambda: tiny.windows(
        n_neighbors=0, reweighting="none", board="largest-tile", margin=0
    ),
    "windows-fp16": lambda: tiny.windows(precision="fp16"),
    "windows-int8": lambda: tiny.windows(precision="int8"),
    "windows-large": lambda: tiny.windows(2048, channels=(40, 56), rows=1100),
    "quiet": lambda: tiny.patchcore(threshold=1e6),
    "calibrated": lambda: tiny.patchcore(threshold=1e6),
}
RULES = Rules(
    ignore=((30, 10, 25, 18), (0, 90, 300, 60)),
    zones=(Zone((60, 20, 60, 50), 1.7), Zone((110, 30, 60, 50), 0.4)),
    edge_margin_px=5,
    min_region_area_px=30,
)
RULED = {  # with rules set on site
    "ruled": tiny.patchcore,
    "ruled-half": lambda: tiny.patchcore(resize=0.5, board="largest-tile"),
    "ruled-fixed-size": lambda: tiny.patchcore(resize=(90, 140), stride=11),
    "ruled-windows": lambda: tiny.windows(32),
    "ruled-grad-cam": lambda: tiny.cutpaste("gaussian", "grad-cam"),
}
BORDERS = (Rect(3, 5, 70, 60), Rect(60, 40, 81, 56))
TWICE = tuple(Rect(*(2 * v for v in r)) for r in BORDERS)
LABELS = (Rect(20, 20, 9, 11), Rect(100, 50, 5, 5))
CASES = [
    *(Case(name) for name in ARTIFACTS),
    *(Case("bilinear", threads=threads, batch=batch) for threads in (2, 3) for batch in (1, 7)),
    Case("indexed", threads=2, batch=3),
    *(Case(name, threads=2, batch=5) for name in ("fp16", "int8")),
    *(Case("grad-cam", threads=threads, batch=5) for threads in (2, 4)),
    *(Case("bilinear", pixel_format=name, padding=3 * i) for i, name in enumerate(FORMATS)),
    *(Case("grad-cam", pixel_format=name, padding=1) for name in ("rgb8", "bgr16")),
    *(Case("half", size=(201, 303), pixel_format=name, padding=6) for name in ("bgr16", "bgra8")),
    Case("bilinear", borders=BORDERS, labels=LABELS),
    Case("half", size=(201, 303), borders=TWICE),
    Case("enlarged", labels=LABELS),
    Case("grad-cam", borders=BORDERS[:1], labels=LABELS, threads=2),
    Case("denoised", size=(201, 303), pixel_format="bgra8", padding=5, labels=LABELS, threads=2),
    Case("plain", maps=False),
    *(Case("windows", threads=threads) for threads in (2, 3)),
    *(
        Case("windows", size=(81, 153), pixel_format=f, padding=2 * i)
        for i, f in enumerate(FORMATS)
    ),
    *(
        Case(f"windows{n}", borders=BORDERS, labels=LABELS)
        for n in ("", "-plain", "-large", "-fp16", "-int8")
    ),
    Case("windows-half", size=(201, 303), borders=TWICE, labels=LABELS, threads=2),
    Case("windows-plain", maps=False),
    Case("grad-cam-kernel", maps=False),
    *(Case(name, size=(130, 201)) for name in RULED),
    *(Case(name, size=(130, 201), borders=BORDERS) for name in RULED if name != "ruled-half"),
    Case("ruled", size=(130, 201), borders=BORDERS, labels=LABELS, threads=2, batch=3),
    *(Case("ruled-half", size=(201, 303), borders=TWICE, maps=maps) for maps in (True, False)),
]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    both = {**ARTIFACTS, **RULED}
    written = {name: tiny.write(folder / f"{name}.kad", make()) for name, make in both.items()}
    set_on_site(written["calibrated"], rules=())
    for name in RULED:
        set_on_site(written[name], calibrations=(), rules=(RulesEntry("now", RULES),))
    return written


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:6])))
def test_equal(case, artifacts, tmp_path):
    parity.check(case, artifacts[case.artifact], pixels_of(case), tmp_path)


@pytest.mark.parametrize("above", [0, 1e-9])
def test_a_threshold_between_float32_numbers(artifacts, tmp_path, above):
    """Of which the nearest is the map's peak: its verdict and its regions agree at both doors."""
    case = Case("bilinear")
    peak = parity.with_python(case, artifacts["bilinear"], pixels_of(case)).score
    manifest, files = tiny.patchcore("same-bilinear", "thesis", 3, threshold=peak * (1 + above))
    thresholds = dataclasses.replace(manifest.thresholds, min_region_area_px=1)
    made = (dataclasses.replace(manifest, thresholds=thresholds), files)
    path = tiny.write(tmp_path / "between.kad", made)
    parity.check(case, path, pixels_of(case), tmp_path)
    result = parity.with_python(case, path, pixels_of(case))
    assert np.float32(result.threshold) == peak
    assert result.anomalous == bool(result.regions) == (above == 0)


def test_the_cases_show_something(artifacts):
    """Among the cases are boards of either verdict, and with several regions."""

    def score(case):
        return parity.with_python(case, artifacts[case.artifact], pixels_of(case))

    results = [score(case) for case in CASES[: len(ARTIFACTS)]]
    assert {result.verdict for result in results} == {"normal", "anomalous"}
    assert max(len(result.regions) for result in results) >= 2
    mapped = [case for case in CASES if case.borders and case.maps]
    assert all(np.isnan(score(case).map).any() for case in mapped)


@pytest.fixture(scope="module")
def beside_a_label(tmp_path_factory):
    """Score boards in windows by rules: 33 px wide, the tiles kept that lie above a label."""
    path = tiny.write(tmp_path_factory.mktemp("labels") / "windows.kad", tiny.windows())

    def of_height(height, label, ignore):
        entry = RulesEntry("now", Rules(ignore=(ignore,)))
        set_on_site(path, calibrations=(), rules=(entry,))
        return Case("windows", size=(height, 33), labels=(Rect(*label),)), path

    return of_height


def test_a_board_of_which_the_map_has_nothing_is_no_pass(beside_a_label, tmp_path):
    """The tiles have judged pixels, but the label's margin leaves the map no value there."""
    case, path = beside_a_label(40, (0, 32, 33, 8), (0, 0, 33, 24))
    pixels = pixels_of(case)
    match = "leave nothing to judge of this board of 33 x 40 px"
    with pytest.raises(AnnotationError, match=match):
        parity.with_python(case, path, pixels)
    with pytest.raises(AssertionError, match=match):
        parity.with_c(case, path, parity.with_padding(pixels, 0), tmp_path)


def test_what_the_map_has_outside_of_tiles_is_judged(beside_a_label, tmp_path):
    """The tiles that are kept are ignored; below the label the map has values, of no tile."""
    case, path = beside_a_label(72, (0, 40, 33, 4), (0, 0, 33, 32))
    pixels = pixels_of(case)
    parity.check(case, path, pixels, tmp_path)
    result = parity.with_python(case, path, pixels)
    assert [tile.factor for tile in result.tiles] == [0.0, 0.0]
    assert result.score == np.nanmax(result.map[52:])
    assert np.isnan(result.map[:52]).all()


def test_rules_show_in_each_way(artifacts):
    """Among the tiles are some not judged, some judged more and some less strictly."""
    case = Case("ruled", size=(130, 201))
    result = parity.with_python(case, artifacts["ruled"], pixels_of(case))
    assert result.rules == RULES
    found = {tile.factor for tile in result.tiles}
    assert found == {0.0, float(np.float32(0.4)), 1.0, float(np.float32(1.7))}
    assert result.regions
