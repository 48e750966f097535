"""The pictures: sizes, content where it can be read back, no state left behind."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest

from kad_sdk.errors import MissingDependencyError
from kad_sdk.plots import Example, Level, curves_png, examples_png, scores_png, thumbnail


def decoded(png: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def has_colour(image: np.ndarray, rgb: tuple[int, int, int]) -> bool:
    return bool((np.abs(image[:, :, ::-1].astype(int) - rgb).max(axis=2) < 12).any())


def levels(*, anomalous: bool = True) -> list[Level]:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1 if anomalous else 0], 20)
    scores = rng.normal(size=40) + labels
    return [
        Level("tiles", labels, scores, 0.5),
        Level("images", labels[10:30], scores[10:30], 0.6),
    ]


def example(name: str = "board.png", *, height: int = 40, width: int = 60) -> Example:
    mask = np.zeros((height, width), bool)
    mask[10:20, 10:20] = True
    heat = np.where(mask, 5, 1).astype(np.float32)
    heat[:5] = np.nan
    image = np.full((height, width, 3), 180, np.uint8)
    return Example(name, "scar", 5.0, True, image, mask, heat, [(10, 10, 10, 10)])


@pytest.mark.parametrize("anomalous", [True, False], ids=["both classes", "one class"])
def test_curves_and_histograms_are_drawn(anomalous: bool) -> None:
    for png in (curves_png(levels(anomalous=anomalous)), scores_png(levels())):
        image = decoded(png)
        assert image.shape[1] == 1200
        assert image.std() > 5  # something is on it
    # The ROC of images is orange; there is none without both classes.
    assert has_colour(decoded(curves_png(levels(anomalous=anomalous))), (238, 119, 51)) == (
        anomalous
    )


def test_histogram_marks_the_threshold_even_beyond_all_scores() -> None:
    def dark_columns(threshold: float) -> int:
        image = decoded(scores_png([dataclasses.replace(levels()[0], threshold=threshold)]))
        middle = image[100:250, 100:]  # right of the axis
        return int((middle.max(axis=2) < 90).sum(axis=0).argmax())

    assert dark_columns(-50.0) < 300
    assert dark_columns(50.0) > 800


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("height", [40, 150], ids=["wide", "tall"])
def test_examples_show_defect_region_and_mask(n: int, height: int) -> None:
    rows = [example(f"{i}.png", height=height) for i in range(n)]
    image = decoded(examples_png(rows, map_threshold=3.0))
    assert has_colour(image, (204, 51, 17)) == (n > 0)  # ground truth
    assert has_colour(image, (51, 221, 238)) == (n > 0)  # region box


def test_example_without_ground_truth_or_map_values_is_drawn() -> None:
    whole = example()
    bare = Example(
        "x", "unlabelled", 1.0, False, whole.image, None, np.full_like(whole.map, np.nan)
    )
    assert decoded(examples_png([bare], map_threshold=3.0)).size


def test_pictures_are_the_same_bytes_again() -> None:
    assert examples_png([example()], 3.0) == examples_png([example()], 3.0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [None, 3])
def test_thumbnail_keeps_a_one_pixel_defect(dtype: type, channels: int | None) -> None:
    full = np.iinfo(dtype).max
    shape = (1000, 500) if channels is None else (1000, 500, channels)
    mask = np.zeros((1000, 500), bool)
    mask[703, 333] = True
    heat = np.ones((1000, 500), np.float32)
    image, small, cold, scale = thumbnail(np.full(shape, full, dtype), mask, heat, side=100)
    assert image.shape == (100, 50, 3)
    assert image.dtype == np.uint8
    assert (image == 255).all()
    assert np.argwhere(small).tolist() == [[70, 33]]
    assert cold.shape == (100, 50)
    assert scale == 0.1


def test_thumbnail_never_enlarges() -> None:
    image = np.zeros((7, 9), np.uint8)
    small, mask, heat, scale = thumbnail(image, None, np.zeros((7, 9), np.float32))
    assert (small.shape, mask, heat.shape, scale) == ((7, 9, 3), None, (7, 9), 1.0)


def test_pyplot_is_never_imported() -> None:
    code = (
        "import sys, numpy as np\n"
        "from kad_sdk.plots import Level, scores_png\n"
        "scores_png([Level('tiles', np.array([0, 1]), np.array([0., 1.]), 0.5)])\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_absent_matplotlib_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"kad-sdk\[evaluate\]"):
        scores_png(levels())
