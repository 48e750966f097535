"""The coreset is that of plain greedy k-center, whatever the pool, the chunks and the threads."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np
import pytest
from kad_export.coreset import Projection, k_center, projected_dims, select_coreset, workers
from kad_export.coreset.driver import NativePickers, Selected, run_selection
from kad_kernels.reference import distances
from kad_kernels.reference import k_center as plain_k_center

from kad_sdk.errors import InvalidArgumentError, NotFiniteError


def _points(seed: int, n: int, dims: int, *, rounded: bool = False) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(n, dims)).astype(np.float32)
    return np.round(points) if rounded else points


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "many-ties"])
@pytest.mark.parametrize("pool_rows", [1, 7, 100, None])
@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("skipped", [0, 1, 13])
def test_selection_is_that_of_plain_greedy(monkeypatch, skipped, shards, pool_rows, rounded):
    monkeypatch.setattr(workers, "CHUNK_ROWS", 97)
    points = _points(shards, 400, 5, rounded=rounded)
    expected, radius = plain_k_center(points, 150, 3, skipped)

    selected = k_center(
        points,
        150,
        start=3,
        pool_rows=pool_rows,
        shards=shards,
        trim_outliers=skipped,
        threads=1 + shards % 2,
    )

    np.testing.assert_array_equal(selected.index, expected)
    assert selected.radius == selected.separation == radius
    assert selected.index.dtype == np.int64


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "many-ties"])
@pytest.mark.parametrize("pool_rows", [1, 7, 100, 400])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("n_known", [1, 5, 60])
def test_a_selection_goes_on_from_given_centres(monkeypatch, n_known, shards, pool_rows, rounded):
    """Against plain greedy from the same centres; and it stops where it has enough."""
    monkeypatch.setattr(workers, "CHUNK_ROWS", 97)
    points, known = _points(shards, 400, 5, rounded=rounded), _points(99, n_known, 5)
    dist, expected, at = distances(known, points).min(axis=0), [], []
    for _ in range(81):
        expected.append(int(dist.argmax()))
        at.append(float(dist[expected[-1]]))
        dist = np.minimum(dist, distances(points[expected[-1] :][:1], points)[0])
        dist[expected[-1]] = -1

    for enough, n in ((-np.inf, 80), *((at[i], at.index(at[i])) for i in (40, 0, 80))):
        bounds = np.linspace(0, 400, shards + 1).astype(int).tolist()
        team = [workers.KnownWorker(known)]
        for low, high in pairwise(bounds):
            part = points[low:high]
            team.append(workers.PointsWorker(part, first_row=n_known + low, pool_rows=pool_rows))
        selected = run_selection(
            workers.LocalTeam(team),
            n_known + 80,
            make_picker=NativePickers(),
            selected=Selected(list(range(n_known)), [np.inf] * n_known),
            enough=enough,
        )
        assert selected.index[:n_known].tolist() == list(range(n_known))
        assert (selected.index[n_known:] - n_known).tolist() == expected[:n]
        assert selected.radius == at[n]


@pytest.mark.parametrize("dims", [1, 15, 16, 17, 31, 33, 65])
def test_selection_at_lane_edges(dims):
    points = _points(dims, 120, dims)
    np.testing.assert_array_equal(k_center(points, 40).index, plain_k_center(points, 40)[0])


def test_pool_saves_passes():
    points = _points(0, 2_000, 8)
    assert 0 < k_center(points, 100, pool_rows=200).counts["passes"] < 30


@pytest.mark.parametrize("skipped", [150, 1_000])
def test_points_that_are_passed_over_do_not_shrink_the_pool(skipped):
    points = _points(0, 2_000, 8)
    found = k_center(points, 100, pool_rows=200, trim_outliers=skipped)
    assert 0 < found.counts["passes"] < 30


def test_copies_are_taken_once_each_and_last():
    points = np.zeros((50, 3), np.float32)
    points[10] = 1
    selected = k_center(points, 50, pool_rows=5)
    assert selected.index[:2].tolist() == [0, 10]
    assert sorted(selected.index.tolist()) == list(range(50))
    assert selected.radius == 0


@pytest.fixture
def few_flushes(monkeypatch):
    """Fail where a selection goes on for ever."""
    flush, left = workers.PointsWorker.flush, iter(range(2_000))

    def counted(worker, *arguments):
        assert next(left, None) is not None, "no end after 2,000 passes"
        return flush(worker, *arguments)

    monkeypatch.setattr(workers.PointsWorker, "flush", counted)


@pytest.mark.usefixtures("few_flushes")
@pytest.mark.parametrize("size", [1, 1e20], ids=["copies", "copies-and-overflow"])
@pytest.mark.parametrize("skipped", [0, 3])
@pytest.mark.parametrize("shards", [1, 3])
def test_selection_ends_where_all_that_is_left_is_as_far(shards, skipped, size):
    """Copies of chosen points are 0 apart; distances of points of 1e20 are all infinite."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points = _points(seed, 2 + seed, 3)[rng.integers(0, 2 + seed, 60)] * np.float32(size)
        with np.errstate(over="ignore"):
            expected, radius = plain_k_center(points, 60 - skipped, 1, skipped)
        for pool_rows in (1, 5, 14):
            found = k_center(
                points,
                60 - skipped,
                start=1,
                pool_rows=pool_rows,
                shards=shards,
                trim_outliers=skipped,
            )
            np.testing.assert_array_equal(found.index, expected)
            assert found.radius == radius


def test_radius_is_the_largest_distance_to_a_centre():
    points = _points(1, 300, 4)
    selected = k_center(points, 20)
    nearest = distances(points, points[selected.index]).min(axis=1)
    assert selected.radius == nearest.max()


def test_reports_grow_to_every_row_and_the_one_behind():
    counts = []
    k_center(
        _points(0, 300, 4), 40, pool_rows=10, report=lambda done: counts.append(len(done.rows))
    )
    assert counts == sorted(counts)
    assert counts[-1] == 41


def test_projected_dims_follow_scikit_learn_and_never_grow():
    assert projected_dims(78_400, 384, 0.9) == 278  # 4 ln(78400) / (0.405 - 0.243)
    assert projected_dims(78_400, 100, 0.9) == 100
    assert projected_dims(1, 384, 0.9) == projected_dims(2, 384, 0.9) > 0
    with pytest.raises(InvalidArgumentError, match="eps must lie between 0 and 1, got 1"):
        projected_dims(10, 10, 1)


def test_projection_keeps_distances_within_eps():
    project = Projection(60, 2_000, eps=0.5, seed=3)
    points = _points(0, 60, 2_000)
    ratio = distances(project(points), project(points)) / np.maximum(distances(points, points), 1)
    off_diagonal = ratio[~np.eye(60, dtype=bool)] ** 2
    assert project.dims < 2_000
    assert 0.5 < off_diagonal.min() < off_diagonal.max() < 1.5


@pytest.mark.parametrize("chunk", [1, 3, 64, 333])
def test_projection_does_not_depend_on_chunks(chunk):
    project = Projection(1_000, 384, seed=1)
    points = _points(0, 333, 384)
    parts = [project(points[i : i + chunk]) for i in range(0, 333, chunk)]
    np.testing.assert_array_equal(np.concatenate(parts), project(points))


def test_projection_is_seeded():
    points = _points(0, 5, 384)
    first, same, other = (Projection(1_000, 384, seed=s)(points) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_select_coreset_is_greedy_on_the_projection(tmp_path):
    points = _points(0, 1_500, 384)
    stored = np.memmap(tmp_path / "points", np.float32, "w+", shape=points.shape)
    stored[:] = points
    expected, _ = plain_k_center(Projection(1_500, 384, seed=5)(points), 30)

    np.testing.assert_array_equal(select_coreset(points, 30, seed=5), expected)
    np.testing.assert_array_equal(select_coreset(stored, 30, seed=5), expected)


@pytest.mark.parametrize(
    ("shape", "n", "start", "message"),
    [
        ((10, 3), 0, 0, "n must lie between 1 and the number of points 10, got 0"),
        ((10, 3), 11, 0, "got 11"),
        ((10, 3), 2, 10, "start must be a row of the 10 points, got 10"),
        ((0, 3), 1, 0, "non-empty matrix"),
        ((10,), 1, 0, "non-empty matrix"),
    ],
)
def test_bad_arguments_are_named(shape, n, start, message):
    with pytest.raises(InvalidArgumentError, match=message):
        select_coreset(np.zeros(shape, np.float32), n, start=start)


@pytest.mark.parametrize("features", [[[0.0, 1.0], [2.0, 3.0]], ((0, 1),), None, "features"])
def test_features_that_are_no_array_are_named(features):
    kind = type(features).__name__
    with pytest.raises(InvalidArgumentError, match=rf"features: expected an array .*got {kind}: "):
        select_coreset(features, 1)


@pytest.mark.parametrize("name", ["n", "start", "trim_outliers"])
@pytest.mark.parametrize("value", [2.0, "2", None])
def test_numbers_that_are_no_integers_are_named(name, value):
    points = _points(0, 20, 3)
    kind = type(value).__name__
    with pytest.raises(InvalidArgumentError, match=f"^{name} must be an integer, got {kind} "):
        select_coreset(points, **{"n": 2, name: value})
    assert len(select_coreset(points, **{"n": 2, name: np.int32(2)})) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shards", [1, 3])
def test_not_finite_features_are_refused(monkeypatch, value, shards):
    """By the first row that has one."""
    monkeypatch.setattr(workers, "CHUNK_ROWS", 25)
    points = _points(0, 100, 4)
    points[[60, 62, 99], 2] = value
    with pytest.raises(NotFiniteError, match=r"^row 60 of the features contains NaN or Inf: look"):
        k_center(points, 5, shards=shards)
    with pytest.raises(NotFiniteError, match=r"^a selected row contains NaN or Inf: look"):
        k_center(points, 5, start=62, shards=shards)


def test_not_finite_features_before_the_projection():
    points = _points(0, 1_500, 384)
    points[[700, 900]] = np.nan
    with pytest.raises(NotFiniteError, match=r"^row 700 of the features contains NaN or Inf: look"):
        select_coreset(points, 5)


@pytest.fixture(scope="module")
def real_points(tmp_path_factory) -> np.ndarray:
    """Patch features of two real images, and copies of some of them."""
    for name in ("KAD_DATA_DIR", "KAD_WEIGHTS_DIR"):
        if name not in os.environ:
            pytest.skip(f"{name} is not set: real images and weights are needed")
    patches = pytest.importorskip("kad_bench.patches", reason="kad_bench is not installed")
    source = patches.RealPatches("hazelnut", 2 * 784, whole=True)
    features = source.prepare(tmp_path_factory.mktemp("cache"), 1, lambda _: None)
    return np.concatenate([features, features[100:900:7]])


@pytest.mark.parametrize("fraction", [0.01, 0.1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_real_features_select_as_plain_greedy(monkeypatch, real_points, seed, fraction):
    n = round(fraction * len(real_points))
    points = Projection(*real_points.shape, seed=seed)(real_points)
    assert points.shape[1] < 384
    expected, radius = plain_k_center(points, n)
    np.testing.assert_array_equal(select_coreset(real_points, n, seed=seed), expected)
    for shards, threads, chunk, pool_rows in (
        *((1, 1, 97, 60), (1, 2, 1_000, 200), (2, 1, 333, 40), (2, 2, 64, 300)),
        *((7, 1, 1_000, 20), (7, 2, 97, 100)),
    ):
        monkeypatch.setattr(workers, "CHUNK_ROWS", chunk)
        found = k_center(points, n, shards=shards, threads=threads, pool_rows=pool_rows)
        np.testing.assert_array_equal(found.index, expected)
        assert found.radius == radius


def test_counts_say_what_a_selection_took():
    points = _points(0, 3_000, 64)
    counts = k_center(points, 200, pool_rows=300, threads=1).counts
    assert counts["passes"] > 1
    assert 0 < counts["measured_pairs"] < 200 * 3_000
    assert counts == k_center(points, 200, pool_rows=300, threads=2).counts


def test_a_gpu_that_is_asked_for_and_missing():
    device = pytest.importorskip("kad_kernels.device", reason="numba-cuda is not installed")
    if device.gpu_is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(device.GpuMissingError, match="numba finds no NVIDIA GPU"):
        select_coreset(_points(0, 30, 5), 3, backend="cuda")


def test_workers_on_a_gpu_share_its_memory(monkeypatch):
    pytest.importorskip("numba.cuda", reason="numba-cuda is not installed")
    from kad_export.coreset import cuda, select

    made, points = [], _points(0, 90, 5)
    each = 30 * (4 * 5 + cuda.POINT_BYTES)
    monkeypatch.setattr(cuda, "free_bytes", lambda: 2 * (2 * each + 1))  # half of it is used
    monkeypatch.setattr(select, "run_selection", lambda team, *_, **__: made.extend(team.workers))
    k_center(points, 3, backend="cuda", shards=3)
    assert [worker._holds_all for worker in made] == [True, True, False]
