"""Score a board: prepare, cut, score tiles, map. No thresholds: calibration runs this too.

The tiles are scored by :mod:`kad_sdk.patchcore` or :mod:`kad_sdk.cutpaste`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kad_sdk._native import NativeBoard, map_peak, plan_tiles, preprocess
from kad_sdk.annotations import Annotation
from kad_sdk.errors import (
    AnnotationError,
    ImageTooSmallError,
    InvalidArgumentError,
    NotFiniteError,
)
from kad_sdk.prepare import check_image, prepare_image, too_small

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from kad_sdk._native import NativeWindows
    from kad_sdk.manifest import MapSettings, Preprocessing

    class Network(Protocol):
        """What runs the network: a session, or what stands for one."""

        provider: str
        device: str
        precision: str


__all__ = [
    "BoardScorer",
    "BoardScores",
    "Stopwatch",
    "TileFindings",
    "in_batch",
    "scored_share",
]

_ROWS = 64  # of a map that are looked at together: they stay in the processor's cache


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


@contextmanager
def in_batch(first: int) -> Iterator[None]:
    """Say which batch fails: its stages number the tiles of the batch."""
    try:
        yield
    except NotFiniteError as error:
        if first == 0:
            raise
        raise NotFiniteError(f"in the batch that begins with tile {first}: {error}") from error


@dataclass(frozen=True, eq=False)
class TileFindings:
    """What a method found on tiles.

    Attributes
    ----------
    scores
        (n,) float32, tile scores.
    patches
        (n, P) float32, each tile's map before it is enlarged, row by row; None without maps.
        PatchCore: distance of each patch to the nearest bank row. CutPaste: Grad-CAM in units of
        the tile's score, or the score alone.
    rows
        (n, P) int64, PatchCore's nearest bank rows; None for CutPaste.
    embeddings
        (n, E) float32, CutPaste's embeddings; None for PatchCore.
    """

    scores: NDArray[np.float32]
    patches: NDArray[np.float32] | None = None
    rows: NDArray[np.int64] | None = None
    embeddings: NDArray[np.float32] | None = None

    def without_patches(self) -> TileFindings:
        """Give the same without the two large arrays."""
        return TileFindings(self.scores, embeddings=self.embeddings)

    @staticmethod
    def joined(parts: Sequence[TileFindings]) -> TileFindings:
        """Join what was found on several batches of tiles."""

        def join(values: list[Any]) -> Any:
            return None if values[0] is None else np.concatenate(values)

        names = [field.name for field in fields(TileFindings)]
        return TileFindings(*(join([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, eq=False)
class BoardScores:
    """What the stages found on one board.

    All positions are in the scored frame: the image's own pixels, or the resized image's where
    the preprocessing resizes.

    Attributes
    ----------
    xy
        (n, 2) int32, top-left corners of the tiles.
    tiles
        What was found on them.
    frame
        (height, width) of the scored frame.
    map
        (H, W) float32, NaN where no tile lies; None without maps.
    board
        What `map` was made by; finds the regions of a threshold.
    timings
        Stage to ms: prepare, preprocess, the method's own stages, map.
    factors
        (n,) float32, by rules set on site: what a tile's threshold is multiplied by, 0 where
        nothing of it is judged. `map` is divided by them, and NaN where it is not judged. None
        without rules.
    min_area_px
        By such a rule: pixels of the smallest region that decides a board; None: a single one does.
    scored_share
        Of the active areas without the labels, in pixels: how much `map` holds a score of, before
        such rules. None without maps.
    """

    xy: NDArray[np.int32]
    tiles: TileFindings
    frame: tuple[int, int]
    map: NDArray[np.float32] | None
    board: NativeBoard | NativeWindows | None
    timings: dict[str, float]
    factors: NDArray[np.float32] | None = None
    min_area_px: int | None = None
    scored_share: float | None = None

    @property
    def scores(self) -> NDArray[np.float32]:
        """(n,) float32, tile scores."""
        return self.tiles.scores

    @property
    def judged(self) -> NDArray[np.float32]:
        """(n,) float32, tile scores over their factors; NaN where nothing of a tile is judged."""
        if self.factors is None:
            return self.scores
        judged = np.full_like(self.scores, np.nan)
        return np.divide(self.scores, self.factors, out=judged, where=self.factors > 0)

    def map_score(self) -> float:
        """Give the board's score by its map: the highest threshold that finds something on it."""
        if self.map is None:
            raise InvalidArgumentError("scores: expected a board scored with maps")
        return map_peak(self.map, min_area_px=self.min_area_px or 1)


def scored_share(board_map: NDArray[np.float32], areas: Annotation) -> float:
    """Give the share of the active areas, labels left out, where a map (H, W) is not NaN.

    Tiles that touch a label are not scored, so that something beside it may be in no tile.
    """
    wanted = np.full(board_map.shape, not areas.borders)
    for x, y, width, height in areas.borders:
        wanted[y : y + height, x : x + width] = True
    for x, y, width, height in areas.labels:
        wanted[y : y + height, x : x + width] = False
    n_wanted = int(np.count_nonzero(wanted))
    for begin in range(0, len(wanted), _ROWS):
        rows = np.s_[begin : begin + _ROWS]
        wanted[rows] &= ~np.isnan(board_map[rows])
    return int(np.count_nonzero(wanted)) / max(1, n_wanted)


class BoardScorer(ABC):
    """The stages from a board image to its scores and its map; safe to share between threads.

    A method's subclass scores the tiles; all else is the same for every method.

    Parameters
    ----------
    session
        The network.
    preprocessing, map_settings
        Settings as in the manifest.
    grid
        (height, width) of a tile's map before it is enlarged; None: no maps are made.
    threads
        Threads of the compiled stages. Scores do not depend on it.
    batch
        Tiles that are in memory at a time. Scores do not depend on it.

    Attributes
    ----------
    stage_device
        Where search or density run, beside a network that may run elsewhere.
    """

    stage_device = "cpu"

    def __init__(
        self,
        session: Network,
        *,
        preprocessing: Preprocessing,
        map_settings: MapSettings,
        grid: tuple[int, int] | None,
        threads: int,
        batch: int = 16,
    ) -> None:
        if batch < 1:
            raise InvalidArgumentError(f"batch: expected at least 1, got {batch}")
        self.session, self.threads, self.batch = session, threads, batch
        self._preprocessing, self._map, self._grid = preprocessing, map_settings, grid

    @abstractmethod
    def score_tiles(
        self, tiles: NDArray[np.float32], watch: Stopwatch | None = None
    ) -> TileFindings:
        """Score normalised tiles (B, 3, t, t); `watch` is told the method's stages."""

    def send_ahead(self, image: NDArray[Any]) -> None:  # noqa: B027 - nothing to do on the CPU
        """Begin with what can be done before :meth:`score` is asked for a board.

        A board is known by its array: until it is scored that must not be changed, unless it is
        sent ahead again after, or forgotten.
        """

    def forget(self, image: NDArray[Any]) -> None:  # noqa: B027 - nothing to do on the CPU
        """Undo :meth:`send_ahead`, if need be; the detector does for a board whose score fails."""

    def close(self) -> None:  # noqa: B027 - a method that holds nothing has nothing to free
        """Free what the method holds; the scorer cannot be used after."""

    def prepare(self, image: NDArray[Any], pixel_format: str | None = None) -> NDArray[Any]:
        """Give the image that tiles are cut from; see :func:`prepare_image`."""
        return prepare_image(
            image,
            resize=self._preprocessing.resize,
            denoise=self._preprocessing.denoise,
            pixel_format=pixel_format,
            threads=self.threads,
        )

    def score(
        self,
        image: NDArray[Any],
        annotation: Annotation | None = None,
        pixel_format: str | None = None,
        *,
        keep_patches: bool = True,
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
        keep_patches
            Whether the result holds the tiles' own maps, which :meth:`map_of` needs.

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
            areas = self._areas(image.shape[:2], prepared.shape[:2], annotation)
            xy = self._plan((image.shape[0], image.shape[1]), prepared.shape[:2], areas)
        frame = (prepared.shape[0], prepared.shape[1])
        board: NativeBoard | None = None
        parts = []
        # Closed here, not by whoever drops an exception: it may hold locks and a board on a GPU.
        with closing(self._find(prepared, xy, format_now, watch)) as batches:
            for begin, found in batches:
                if self._grid is not None and found.patches is not None:
                    corners = xy[begin : begin + len(found.scores)]
                    with in_batch(begin), watch.stage("map"):
                        if board is None:  # not before: a GPU has work by now
                            board = self._board(frame, self._grid)
                        board.add(corners, found.patches, found.rows, threads=self.threads)
                parts.append(found if keep_patches else found.without_patches())
        joined, anomaly_map, share = TileFindings.joined(parts), None, None
        if board is not None:
            with watch.stage("map"):
                anomaly_map = board.map(threads=self.threads)
                share = scored_share(anomaly_map, areas)
        return BoardScores(
            xy, joined, frame, anomaly_map, board, dict(watch.ms), scored_share=share
        )

    def _find(
        self,
        image: NDArray[Any],
        xy: NDArray[np.int32],
        pixel_format: str | None,
        watch: Stopwatch,
    ) -> Generator[tuple[int, TileFindings], None, None]:
        """Score the tiles at corners `xy` of a prepared image; a batch's first tile, its findings.

        The batches come in order.
        """
        for begin in range(0, len(xy), self.batch):
            with watch.stage("preprocess"):
                tiles = self._cut(image, xy[begin : begin + self.batch], pixel_format)
            with in_batch(begin):
                found = self.score_tiles(tiles, watch)
            yield begin, found

    def map_of(self, scores: BoardScores, keep: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Give the map (H, W) that some of a board's tiles make alone; `keep` is (n,)."""
        if self._grid is None or scores.tiles.patches is None:
            raise InvalidArgumentError("scores: expected a board scored with maps and patches kept")
        board = self._board(scores.frame, self._grid)
        board.add(scores.xy[keep], scores.tiles.patches[keep], threads=self.threads)
        return board.map(threads=self.threads)

    def _board(self, frame: tuple[int, int], grid: tuple[int, int]) -> NativeBoard:
        return NativeBoard(
            *frame,
            tile=self._preprocessing.tile,
            grid=grid,
            sigma=self._map.sigma,
            radius=self._map.radius,
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
            threads=self.threads,
        )

    @staticmethod
    def _areas(
        size: tuple[int, ...], frame: tuple[int, ...], annotation: Annotation | None
    ) -> Annotation:
        """Check an annotation of the image, and give it in px of the scored frame."""
        annotation = Annotation() if annotation is None else annotation
        if not isinstance(annotation, Annotation):
            raise InvalidArgumentError(
                f"annotation: expected a kad_sdk.Annotation or None, got "
                f"{type(annotation).__name__}; read_annotations() gives those of a file, "
                "Annotation(borders=(Rect(x, y, width, height),)) makes one"
            )
        annotation.check(size[0], size[1])
        if frame == size:
            return annotation
        return annotation.resized((size[0], size[1]), (frame[0], frame[1]))

    def _plan(
        self, size: tuple[int, int], frame: tuple[int, ...], annotation: Annotation
    ) -> NDArray[np.int32]:
        """Tiles (n, 2) of the scored frame of an image; the annotation is in the frame's px."""
        settings = self._preprocessing
        try:
            xy = plan_tiles(
                frame[0],
                frame[1],
                tile=settings.tile,
                stride=settings.stride,
                borders=annotation.borders,
                labels=annotation.labels,
            )
        except ImageTooSmallError as error:
            wish = "a larger" if settings.resize else "with a"
            raise ImageTooSmallError(
                f"{too_small(error, size, settings.resize, settings.tile)}; give the whole board, "
                f"or export an artifact with a smaller tile or {wish} size that boards are brought "
                "to (--tile, --resize)"
            ) from error
        if len(xy) == 0:
            raise AnnotationError(
                f"the {len(annotation.labels)} labels touch every tile: nothing is left to score; "
                "check that they are rectangles [x, y, width, height] of stickers"
            )
        return xy
