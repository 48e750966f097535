"""Score a board: prepare, cut, network, search, map. No thresholds: calibration runs this too."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from kad_sdk._native import NativeBoard, plan_tiles, preprocess, resize_image
from kad_sdk.annotations import Annotation
from kad_sdk.errors import (
    AnnotationError,
    ImageTooSmallError,
    InvalidArgumentError,
    UnsupportedImageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kad_sdk._native import NativeIndex
    from kad_sdk.manifest import Denoise, MapSettings, PatchCore, Preprocessing
    from kad_sdk.session import NetworkSession

__all__ = ["BoardScorer", "BoardScores", "Stopwatch", "frame_size", "prepare_image"]


class Stopwatch:
    """Adds up the time spent in named stages, in ms."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time that the block takes under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] += 1e3 * (time.perf_counter() - start)


def frame_size(size: tuple[int, int], resize: tuple[int, int] | float | None) -> tuple[int, int]:
    """Size (height, width) in which an image of `size` is scored.

    `resize` is a size, a factor, or None for the image's own size.
    """
    if resize is None:
        return size
    if isinstance(resize, tuple):
        return resize
    return max(1, round(size[0] * resize)), max(1, round(size[1] * resize))


def prepare_image(
    image: NDArray[Any],
    *,
    resize: tuple[int, int] | float | None,
    denoise: Denoise | None,
    pixel_format: str | None = None,
    threads: int = 1,
) -> NDArray[Any]:
    """Bring a board to the state that tiles are cut from: resized, then denoised.

    Parameters
    ----------
    image
        (H, W) or (H, W, channels), uint8 or uint16.
    resize
        (height, width) in px, a factor, or None to keep the size.
    denoise
        Settings of ``cv2.fastNlMeansDenoisingColored``, or None.
    pixel_format
        As :func:`kad_sdk._native.preprocess` takes it; None: by dtype and shape.
    threads
        Threads of the resizing.

    Returns
    -------
    ndarray
        `image` itself when there is nothing to do; otherwise (height, width, 3) RGB.

    Raises
    ------
    UnsupportedImageError
        `denoise` is set and the image has 16 bits.
    """
    if resize is None and denoise is None:
        return image
    if denoise is not None and image.dtype != np.uint8:
        raise UnsupportedImageError(
            f"denoising works on 8-bit images, got {image.dtype}; give 8-bit images, or export "
            "the artifact without --denoise"
        )
    # At its own size this is an exact copy as RGB, whatever the pixel format.
    height, width = frame_size((image.shape[0], image.shape[1]), resize)
    rgb = resize_image(image, height, width, pixel_format=pixel_format, threads=threads)
    return rgb if denoise is None else _denoised(rgb, denoise)


def _denoised(rgb: NDArray[np.uint8], denoise: Denoise) -> NDArray[np.uint8]:
    bgr = cv2.fastNlMeansDenoisingColored(  # it takes the first channel for blue
        cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
        None,
        denoise.h,
        denoise.h_color,
        denoise.template_window,
        denoise.search_window,
    )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class BoardScores:
    """What the stages found on one board.

    All positions are in the scored frame: the image's own pixels, or the resized image's where
    the preprocessing resizes.

    Attributes
    ----------
    xy
        (n, 2) int32, top-left corners of the tiles.
    dist
        (n, P) float32, distance of each patch to the nearest bank row.
    index
        (n, P) int64, that row.
    scores
        (n,) float32, tile scores.
    map
        (H, W) float32, NaN where no tile lies.
    board
        What `map` was made by; finds the regions of a threshold.
    timings
        Stage to ms: prepare, preprocess, network, search, map.
    """

    xy: NDArray[np.int32]
    dist: NDArray[np.float32]
    index: NDArray[np.int64]
    scores: NDArray[np.float32]
    map: NDArray[np.float32]
    board: NativeBoard
    timings: dict[str, float]


class BoardScorer:
    """The stages from a board image to its scores and its map; safe to share between threads.

    Parameters
    ----------
    session
        The network.
    index
        The memory bank.
    preprocessing, patchcore, map_settings
        Settings as in the manifest.
    neighbors
        (M, columns) int64, each bank row's nearest other rows, for the re-weighting.
    threads
        Threads of the compiled stages. Scores do not depend on it.
    batch
        Tiles that are in memory at a time. Scores do not depend on it.
    """

    def __init__(
        self,
        session: NetworkSession,
        index: NativeIndex,
        *,
        preprocessing: Preprocessing,
        patchcore: PatchCore,
        map_settings: MapSettings,
        neighbors: NDArray[np.int64],
        threads: int,
        batch: int = 16,
    ) -> None:
        if batch < 1:
            raise InvalidArgumentError(f"batch: expected at least 1, got {batch}")
        self._session, self._index, self._neighbors = session, index, neighbors
        self._preprocessing, self._patchcore, self._map = preprocessing, patchcore, map_settings
        self._threads, self._batch = threads, batch

    def prepare(self, image: NDArray[Any], pixel_format: str | None = None) -> NDArray[Any]:
        """Give the image that tiles are cut from; see :func:`prepare_image`."""
        return prepare_image(
            image,
            resize=self._preprocessing.resize,
            denoise=self._preprocessing.denoise,
            pixel_format=pixel_format,
            threads=self._threads,
        )

    def score(
        self,
        image: NDArray[Any],
        annotation: Annotation | None = None,
        pixel_format: str | None = None,
    ) -> BoardScores:
        """Score a board.

        Parameters
        ----------
        image
            (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; uint8 or uint16; any row stride.
        annotation
            Active areas and label stickers, in px of `image`; None: all of it is scored.
        pixel_format
            Where dtype and shape do not say it, for example ``"bgr8"``.

        Raises
        ------
        UnsupportedImageError, InvalidArgumentError
            The array is not an image that can be scored.
        ImageTooSmallError
            The image, or an active area, is smaller than a tile.
        AnnotationError
            A rectangle leaves the image, or the stickers leave no tile.
        """
        check_image(image)
        watch = Stopwatch()
        with watch.stage("prepare"):
            prepared = self.prepare(image, pixel_format)
            format_now = pixel_format if prepared is image else None
            xy = self._plan(image.shape[:2], prepared.shape[:2], annotation or Annotation())
        board = self._board(prepared.shape[0], prepared.shape[1])
        patches = self._patchcore.grid[0] * self._patchcore.grid[1]
        dist = np.empty((len(xy), patches), np.float32)
        index = np.empty((len(xy), patches), np.int64)
        scores = np.empty(len(xy), np.float32)
        for begin in range(0, len(xy), self._batch):
            part = slice(begin, begin + self._batch)
            with watch.stage("preprocess"):
                tiles = self._cut(prepared, xy[part], format_now)
            dist[part], index[part], scores[part] = self.score_tiles(tiles, watch)
            with watch.stage("map"):
                board.add(xy[part], dist[part], index[part], threads=self._threads)
        with watch.stage("map"):
            anomaly_map = board.map(threads=self._threads)
        return BoardScores(xy, dist, index, scores, anomaly_map, board, dict(watch.ms))

    def map_of(self, scores: BoardScores, keep: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Give the map (H, W) that some of a board's tiles make alone; `keep` is (n,)."""
        board = self._board(scores.map.shape[0], scores.map.shape[1])
        board.add(scores.xy[keep], scores.dist[keep], threads=self._threads)
        return board.map(threads=self._threads)

    def _board(self, height: int, width: int) -> NativeBoard:
        return NativeBoard(
            height,
            width,
            tile=self._preprocessing.tile,
            grid=self._patchcore.grid,
            sigma=self._map.sigma,
            radius=self._map.radius,
        )

    def score_tiles(
        self, tiles: NDArray[np.float32], watch: Stopwatch | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Run network and search on normalised tiles (B, 3, t, t).

        Returns
        -------
        tuple
            Distances (B, P), bank rows (B, P) and scores (B,).
        """
        watch = watch or Stopwatch()
        with watch.stage("network"):
            maps = self._session.run(tiles)
        with watch.stage("search"):
            return self._index.score_tiles(
                maps,
                grid=self._patchcore.grid,
                resampling=self._patchcore.resampling,
                reweighting=self._patchcore.reweighting,
                neighbors=self._neighbors,
                n_neighbors=self._patchcore.n_neighbors,
                threads=self._threads,
            )

    def _cut(
        self, image: NDArray[Any], xy: NDArray[np.int32], pixel_format: str | None
    ) -> NDArray[np.float32]:
        return preprocess(
            image,
            xy,
            tile=self._preprocessing.tile,
            mean=self._preprocessing.mean,
            std=self._preprocessing.std,
            pixel_format=pixel_format,
            threads=self._threads,
        )

    def _plan(
        self, size: tuple[int, ...], frame: tuple[int, ...], annotation: Annotation
    ) -> NDArray[np.int32]:
        """Tiles (n, 2) of the scored frame; the annotation is in px of the image."""
        annotation.check(size[0], size[1])
        if frame != size:
            annotation = annotation.resized((size[0], size[1]), (frame[0], frame[1]))
        try:
            xy = plan_tiles(
                frame[0],
                frame[1],
                tile=self._preprocessing.tile,
                stride=self._preprocessing.stride,
                borders=annotation.borders,
                labels=annotation.labels,
            )
        except ImageTooSmallError as error:
            raise ImageTooSmallError(
                f"{error}; give the whole board, or export an artifact with a smaller tile or with "
                "a size that boards are brought to (--tile, --resize)"
            ) from error
        if len(xy) == 0:
            raise AnnotationError(
                f"the {len(annotation.labels)} labels touch every tile: nothing is left to score; "
                "check that they are rectangles [x, y, width, height] of stickers"
            )
        return xy


def check_image(image: NDArray[Any]) -> None:
    """Refuse arrays that are no image, before any work.

    Raises
    ------
    InvalidArgumentError
        Not an array of 2 or 3 dimensions.
    UnsupportedImageError
        A dtype other than uint8 and uint16: floats have no defined full scale.
    """
    if not isinstance(image, np.ndarray) or image.ndim not in {2, 3}:
        what = image.shape if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidArgumentError(
            f"image: expected an array (H, W), (H, W, 3) or (H, W, 4), got {what}"
        )
    if image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise UnsupportedImageError(
            f"image: expected uint8 or uint16, got {image.dtype}; convert it, scaled by its full "
            "scale and not by its own maximum"
        )
