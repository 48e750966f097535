"""t-SNE of embeddings: which tiles are drawn, where they lie, what the picture shows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from kad_sdk.tsne import EmbeddingSample, lay_out, tsne_png


def offer(sample: EmbeddingSample, first: int, truth: list[int], **kinds: list[int]) -> None:
    """Tiles whose embedding is their number."""
    numbers = np.arange(first, first + len(truth), dtype=np.float32)[:, None]
    shown = {kind: np.array(tiles, np.uint8) for kind, tiles in kinds.items()}
    sample.add(numbers, np.array(truth, np.uint8), shown)


def test_normal_tiles_come_first_and_each_has_its_kind() -> None:
    sample = EmbeddingSample()
    offer(sample, 0, [0, 1, 1, 0], dent=[0, 1, 0, 0], scar=[0, 1, 1, 0])
    offer(sample, 4, [0, 1], dirt=[0, 1])
    embeddings, kinds = sample.tiles()
    found = dict(zip(embeddings[:, 0].tolist(), kinds, strict=True))
    assert found == {0: "normal", 3: "normal", 4: "normal", 1: "dent", 2: "scar", 5: "dirt"}
    assert kinds[:3] == ["normal"] * 3


def test_a_bounded_number_of_either_class_is_drawn_evenly() -> None:
    times = np.zeros(200)
    for seed in range(300):
        sample = EmbeddingSample(per_class=20, _rng=np.random.default_rng(seed))
        for first in range(0, 200, 50):  # four images of 50 tiles, all normal but the last one
            truth = [int(first == 150)] * 50
            offer(sample, first, truth, dent=truth)
        embeddings, kinds = sample.tiles()
        assert (kinds.count("normal"), kinds.count("dent")) == (20, 20)
        times[embeddings[:, 0].astype(int)] += 1
    normal, defective = times[:150], times[150:]
    assert normal.sum() == defective.sum() == 300 * 20
    # Of 150 normal tiles 20 are kept each time: 40 times each, give or take 4 standard deviations.
    assert np.abs(normal - 40).max() < 4 * np.sqrt(300 * 20 / 150)
    assert abs(normal[:50].mean() - normal[100:].mean()) < 4


def test_the_same_tiles_are_drawn_again() -> None:
    drawn = []
    for _ in range(2):
        sample = EmbeddingSample(per_class=5)
        offer(sample, 0, [0] * 40)
        drawn.append(sample.tiles()[0].tolist())
    assert drawn[0] == drawn[1]


def clusters() -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    far = rng.normal(size=(40, 16)) + np.repeat([[0.0], [30.0]], 20, axis=0)
    return far.astype(np.float32), ["normal"] * 20 + ["dent"] * 20


def test_clusters_stay_apart_and_the_map_is_the_same_again() -> None:
    embeddings, _ = clusters()
    places = lay_out(embeddings)
    assert places.shape == (40, 2)
    between = np.linalg.norm(places[:20].mean(0) - places[20:].mean(0))
    within = max(np.linalg.norm(part - part.mean(0), axis=1).max() for part in np.split(places, 2))
    assert between > 2 * within
    assert np.array_equal(lay_out(embeddings), places)


@pytest.mark.parametrize("n", [0, 7, 40])
def test_the_picture_has_a_colour_for_each_kind(n: int) -> None:
    embeddings, kinds = clusters()
    png = tsne_png(embeddings[:n], kinds[:n])
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
    blue = np.abs(image - (31, 119, 180)).max(axis=2) < 12
    assert blue.any() == (n == 40)
