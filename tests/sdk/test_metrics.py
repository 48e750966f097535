"""Metrics against hand-made cases and independent, simple, exact implementations."""

from __future__ import annotations

import itertools
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
import scipy.ndimage
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from kad_sdk.errors import InvalidArgumentError, MissingDependencyError, NotFiniteError
from kad_sdk.metrics import PixelMetrics, classify, precision_recall_curve, roc_auc, roc_curve

# ---- the oracles: slow, obvious, nothing in common with the module ---------------------------


def exact_auroc(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Share of (defect, normal) pixel pairs in the right order, ties counting half."""
    scores = np.concatenate([m[~np.isnan(m)] for m, _ in pairs]).astype(np.float64)
    labels = np.concatenate([t[~np.isnan(m)] for m, t in pairs])
    normal = np.sort(scores[~labels])
    below = np.searchsorted(normal, scores[labels], "left")
    not_above = np.searchsorted(normal, scores[labels], "right")
    return float(np.mean((below + not_above) / 2) / normal.size)


def flood(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected components of a mask, as lists of (y, x)."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    components = []
    while left:
        stack, component = [left.pop()], []
        while stack:
            y, x = stack.pop()
            component.append((y, x))
            for near in [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    stack.append(near)
        components.append(component)
    return components


def exact_aupro(pairs: list[tuple[np.ndarray, np.ndarray]], limit: float = 0.3) -> float:
    """Walk over every distinct value as a threshold; trapezoids up to the limit."""
    normal = np.concatenate([m[~np.isnan(m) & ~t] for m, t in pairs])
    regions = []
    for values, truth in pairs:
        for component in flood(truth):
            inside = np.array([values[y, x] for y, x in component])
            inside = inside[~np.isnan(inside)]
            if inside.size:
                regions.append(inside)
    everything = np.concatenate([normal, *regions])
    area, fpr_before, pro_before = 0.0, 0.0, 0.0
    for threshold in np.unique(everything)[::-1]:
        fpr = float(np.mean(normal >= threshold))
        pro = float(np.mean([np.mean(r >= threshold) for r in regions]))
        if fpr > limit:
            share = (limit - fpr_before) / (fpr - fpr_before)
            pro = pro_before + share * (pro - pro_before)
            fpr = limit
        area += (fpr - fpr_before) * (pro + pro_before) / 2
        if fpr == limit:
            break
        fpr_before, pro_before = fpr, pro
    return area / limit


def library_aupro(pairs: list[tuple[np.ndarray, np.ndarray]], limit: float = 0.3) -> float:
    """Another way: regions by SciPy; scikit-learn's ROC curve over weighted pixels, integrated."""
    labels, scores, weights = [], [], []
    for values, truth in pairs:
        regions, n = scipy.ndimage.label(truth, structure=np.ones((3, 3)))
        sizes = scipy.ndimage.sum_labels(truth, regions, np.arange(n + 1))
        labels.append(truth.ravel())
        scores.append(values.ravel())
        weights.append(np.where(truth, 1 / np.maximum(sizes[regions], 1), 1.0).ravel())
    fpr, pro, _ = sklearn.metrics.roc_curve(
        np.concatenate(labels),
        np.concatenate(scores),
        sample_weight=np.concatenate(weights),
        drop_intermediate=False,
    )
    inside = fpr < limit
    x = np.append(fpr[inside], limit)
    y = np.append(pro[inside], np.interp(limit, fpr, pro))
    return float(np.trapezoid(y, x) / limit)


def measured(pairs: list[tuple[np.ndarray, np.ndarray]]) -> PixelMetrics:
    pixels = PixelMetrics()
    for values, truth in pairs:
        pixels.add(values, truth)
    return pixels


def random_pairs(seed: int, *, steps: int | None, nan: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(3):
        height, width = rng.integers(8, 40, size=2)
        truth = rng.random((height, width)) < 0.08
        values = rng.normal(size=(height, width)) + truth
        if steps:
            values = np.round(values * steps) / steps
        values = values.astype(np.float32)
        if nan:
            values[: height // 3] = np.nan
        pairs.append((values, truth))
    return pairs


# ---- pixels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("nan", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_figures_equal_exact_ones_where_values_fall_into_bins_of_their_own(
    seed: int, nan: bool
) -> None:
    pairs = random_pairs(seed, steps=64, nan=nan)  # with many ties, negative values and zeros
    pixels = measured(pairs)
    assert pixels.roc_auc().value == pytest.approx(exact_auroc(pairs), abs=1e-12)
    assert pixels.aupro().value == pytest.approx(exact_aupro(pairs), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_pixel_figures_of_arbitrary_values_are_within_the_stated_bound(seed: int) -> None:
    pairs = random_pairs(seed, steps=None, nan=False)
    pixels = measured(pairs)
    for area, exact in [
        (pixels.roc_auc(), exact_auroc(pairs)),
        (pixels.aupro(), exact_aupro(pairs)),
    ]:
        assert abs(area.value - exact) <= area.error_bound + 1e-12
        assert area.error_bound < 1e-4
        assert area.value == pytest.approx(exact, abs=1e-6)


def board_like(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth map with a few defects of very different sizes, some of them missed."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((height, width), dtype=np.float32)
    values = 3 + 2 * cv2.GaussianBlur(noise, (0, 0), 3)
    truth = np.zeros((height, width), bool)
    for _ in range(6):
        y, x = rng.integers(0, (height - 40, width - 40))
        tall, wide = rng.integers(1, 40, size=2)
        truth[y : y + tall, x : x + wide] = True
        values[y : y + tall, x : x + wide] += rng.uniform(-0.2, 1.5)
    return values, truth


def test_aupro_of_board_like_maps_equals_scikit_learn_over_scipy_regions() -> None:
    pairs = [board_like(seed, 300, 260) for seed in range(4)]
    area = measured(pairs).aupro()
    assert 0.3 < area.value < 0.95  # neither trivial
    assert area.value == pytest.approx(library_aupro(pairs), abs=1e-6)
    assert abs(area.value - library_aupro(pairs)) <= area.error_bound + 1e-12


def test_memory_of_19_megapixel_maps_is_bounded_and_does_not_grow_with_their_number() -> None:
    height, width = 4730, 4074
    values = np.linspace(0.5, 7.9, height * width, dtype=np.float32).reshape(height, width)
    truth = np.zeros((height, width), bool)
    truth[2000:2400, 300:320] = truth[4500:, 4000:] = True
    pixels = PixelMetrics()
    peaks, kept = [], []
    for _ in range(2):
        tracemalloc.start()
        pixels.add(values, truth)
        kept.append(tracemalloc.get_traced_memory()[0])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Histograms of four octaves, 25 MB each; a number and two flags for each pixel; one strip.
    assert max(peaks) < 100e6 + (4 + 2) * values.size + 80e6
    assert max(kept) < 110e6  # the histograms alone
    assert kept[1] <= kept[0] + 1e6
    assert pixels.n_normal_px == 2 * int((~truth).sum())
    # A rising ramp: the share of pixels above each row is known.
    assert pixels.roc_auc().value == pytest.approx(ramp_auroc(truth), abs=1e-6)


def ramp_auroc(truth: np.ndarray) -> float:
    """AUROC of values that rise with the position."""
    flat = truth.ravel()
    below = np.cumsum(~flat)
    return float(below[flat].mean() / (~flat).sum())


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_error_bound_holds_where_bins_are_too_wide(limit: float) -> None:
    # Neighbouring float32 values share a bin: the module cannot see their order, and must say so.
    near = np.float32(1) + np.arange(6, dtype=np.float32) * np.float32(2**-23)
    values = near[np.array([[0, 1, 2], [3, 4, 5]])]
    truth = np.array([[0, 0, 0], [0, 1, 1]], dtype=bool)
    pixels = measured([(values, truth)])
    assert exact_auroc([(values, truth)]) == 1.0
    assert pixels.roc_auc().value == 0.5
    assert pixels.roc_auc().error_bound == pytest.approx(0.5)
    area = pixels.aupro(limit)
    assert abs(area.value - exact_aupro([(values, truth)], limit)) <= area.error_bound + 1e-12


def test_regions_weigh_alike_whatever_their_size() -> None:
    truth = np.zeros((10, 10), dtype=bool)
    truth[0:5, 0:5] = True  # 25 px, found
    truth[9, 9] = True  # 1 px, missed
    values = np.where(truth, np.float32(2), np.float32(1))
    values[9, 9] = 0
    pixels = measured([(values, truth)])
    assert pixels.n_regions == 2
    # 0.5 at FPR 0, rising to 0.5 at FPR 1 (all normal pixels tie), then 1.
    assert pixels.aupro().value == pytest.approx(0.5)
    assert pixels.roc_auc().value == pytest.approx(25 / 26)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    truth = np.eye(4, dtype=bool)
    assert measured([(np.zeros((4, 4), np.float32), truth)]).n_regions == 1


def test_a_region_counts_with_its_unmasked_pixels() -> None:
    truth = np.zeros((4, 6), dtype=bool)
    truth[0, 0:4] = True
    truth[3, 3:6] = True
    values = np.ones((4, 6), np.float32)
    values[0, 0:2] = 2
    values[0, 2:4] = np.nan
    values[3] = np.nan
    pixels = measured([(values, truth)])
    assert (pixels.n_regions, pixels.n_masked_regions) == (1, 1)
    assert (pixels.n_masked_px, pixels.n_defect_px, pixels.n_normal_px) == (8, 2, 14)
    assert pixels.aupro().value == pytest.approx(1.0)


def test_pixel_figures_do_not_depend_on_how_images_are_cut_into_strips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = random_pairs(7, steps=None, nan=True)
    whole = measured(pairs)
    monkeypatch.setattr("kad_sdk.metrics._STRIP_PX", 64)
    strips = measured(pairs)
    assert strips.roc_auc() == whole.roc_auc()
    assert strips.aupro().value == pytest.approx(whole.aupro().value, abs=1e-12)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=8))
@settings(deadline=None, max_examples=60)
def test_bins_keep_the_order_of_all_float32_values(values: list[float]) -> None:
    for low, high in itertools.pairwise(values):
        pixels = PixelMetrics()
        pixels.add(np.array([[low, high]], np.float32), np.array([[False, True]]))
        area = pixels.roc_auc()
        exact = 1.0 if high > low else 0.5 if high == low else 0.0
        assert abs(area.value - exact) <= area.error_bound


@pytest.mark.parametrize(
    ("values", "truth", "words"),
    [
        (np.ones((2, 2)), np.zeros((2, 2), bool), "no scored pixel is marked"),
        (np.ones((2, 2)), np.ones((2, 2), bool), "every scored pixel is marked"),
        (np.full((2, 2), np.nan), np.eye(2, dtype=bool), "no images with a ground truth"),
    ],
)
def test_pixel_figures_without_both_classes_are_none_with_a_reason(
    values: np.ndarray, truth: np.ndarray, words: str
) -> None:
    pixels = measured([(values.astype(np.float32), truth)])
    for area in (pixels.roc_auc(), pixels.aupro()):
        assert area.value is None
        assert words in area.reason


def test_pixel_metrics_refuse_wrong_shapes_and_infinity() -> None:
    pixels = PixelMetrics()
    with pytest.raises(InvalidArgumentError, match=r"got \(2, 3\) and \(3, 2\)"):
        pixels.add(np.zeros((2, 3), np.float32), np.zeros((3, 2), bool))
    with pytest.raises(NotFiniteError, match="infinite"):
        pixels.add(np.array([[np.inf]], np.float32), np.zeros((1, 1), bool))


# ---- items -----------------------------------------------------------------------------------


def test_classification_of_a_case_worked_out_by_hand() -> None:
    #        label   1    1    0    1    0    0
    scores = [0.9, 0.8, 0.7, 0.4, 0.3, 0.1]
    result = classify([1, 1, 0, 1, 0, 0], scores, threshold=0.7)
    assert result.confusion_matrix == [[2, 1], [1, 2]]
    assert result.accuracy == pytest.approx(4 / 6)
    assert result.precision == pytest.approx(2 / 3)
    assert result.recall == pytest.approx(2 / 3)
    assert result.roc_auc == pytest.approx(8 / 9)  # 1 of 9 pairs in the wrong order
    assert result.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    # Flagging at 0.4: 3 found, 1 false alarm, none missed: F1 = 6/7.
    assert result.best_f1 == pytest.approx(6 / 7)
    assert result.best_f1_threshold == 0.4
    assert result.reasons == {}


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=25))
@settings(deadline=None, max_examples=60)
def test_best_f1_is_the_largest_of_all_thresholds(items: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(column) for column in zip(*items, strict=True))
    result = classify(labels, scores, threshold=3.0)
    if labels.min() == labels.max():
        assert result.best_f1 is None
        return

    def f1(threshold: float) -> float:
        flagged = scores >= threshold
        return 2 * np.sum(flagged & (labels == 1)) / (flagged.sum() + labels.sum())

    assert result.best_f1 == pytest.approx(max(f1(t) for t in scores))
    assert f1(result.best_f1_threshold) == pytest.approx(result.best_f1)


@pytest.mark.parametrize(
    ("labels", "missing", "words"),
    [
        ([0, 0], {"roc_auc", "recall"}, "all 2 tiles are normal"),
        ([1, 1], {"roc_auc"}, "all 2 tiles are anomalous"),
        ([], {"roc_auc", "accuracy", "confusion_matrix"}, "there are no tiles"),
    ],
)
def test_figures_that_the_data_cannot_give_are_none_with_a_reason(
    labels: list[int], missing: set[str], words: str
) -> None:
    result = classify(labels, [0.5] * len(labels), threshold=0.1, items="tiles")
    for name in missing:
        assert getattr(result, name) is None
        assert words in result.reasons[name]
    unset = {name for name in vars(result) if getattr(result, name) is None}
    assert unset == set(result.reasons)


def test_precision_of_no_flagged_item_is_none_with_a_reason() -> None:
    result = classify([0, 1], [0.1, 0.2], threshold=0.5, items="images")
    assert result.precision is None
    assert "none of the 2 images reaches the threshold" in result.reasons["precision"]
    assert result.recall == 0


def test_roc_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    assert roc_auc([1, 0, 1, 0], [4, 3, 2, 2]) == pytest.approx(2.5 / 4)  # one pair ties
    assert roc_auc([1, 1], [0.1, 0.2]) is None
    assert roc_auc([], []) is None


def test_curves_have_their_corners() -> None:
    roc = roc_curve([0, 1, 0, 1], [0.1, 0.4, 0.35, 0.8])
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    curve = precision_recall_curve([0, 1, 0, 1], [0.1, 0.4, 0.35, 0.8])
    assert (curve.x[0], curve.x[-1], curve.y[-1]) == (1, 0, 1)


def test_classification_refuses_bad_input() -> None:
    with pytest.raises(InvalidArgumentError, match=r"got shapes \(2,\) and \(3,\)"):
        classify([0, 1], [1, 2, 3], threshold=1)
    with pytest.raises(InvalidArgumentError, match="must be 0"):
        classify([0, 2], [1, 2], threshold=1)
    with pytest.raises(NotFiniteError, match="score 1 is nan"):
        classify([0, 1], [1, np.nan], threshold=1)


def test_absent_scikit_learn_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingDependencyError, match=r"kad-sdk\[evaluate\]"):
        classify([0, 1], [0.1, 0.2], threshold=0.5)
