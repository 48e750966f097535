"""The front door: open an artifact, score boards."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_sdk._native import default_threads, resize_map
from kad_sdk.annotations import find_annotation
from kad_sdk.artifact import Artifact, CutPasteArtifact, PatchCoreArtifact
from kad_sdk.cutpaste import CutPasteScorer
from kad_sdk.errors import (
    AnnotationError,
    ImageTooSmallError,
    InvalidArgumentError,
    UnsupportedImageError,
)
from kad_sdk.images import list_images, read_image
from kad_sdk.judge import judge_board
from kad_sdk.manifest_entries import FLOAT32_MAX, FLOAT32_TINY
from kad_sdk.patchcore import PatchCoreScorer
from kad_sdk.result import Nearest, Region, Result, TileScore
from kad_sdk.scoring import Stopwatch
from kad_sdk.windows import WindowScorer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

    from kad_sdk._native import RegionRecord
    from kad_sdk.annotations import Annotation
    from kad_sdk.scoring import BoardScorer, BoardScores

__all__ = ["Detector", "open_scorer"]


class Detector:
    """An opened artifact with its network and all that scores its tiles.

    Immutable once open: one detector may score in several threads at the same time. Use it as a
    context manager, or call :meth:`close`.

    Attributes
    ----------
    artifact
        The artifact, with its manifest.
    rules
        What was set on site about where and from what size something is a defect.
    maps
        Whether maps and regions are made.
    provider, device, precision
        What the network really runs on, for example ``"cpu"``, ``"cpu"``, ``"fp32"``.
    stage_device
        Where search or density run: the network's device with tiles of PatchCore on CUDA, else
        ``"cpu"``.
    threads, batch
        Threads used, and tiles in memory at a time. Scores depend on neither.
    tile_threshold, map_threshold
        tau of tiles and of the map.
    threshold
        tau of boards: one of the two, as the artifact says.
    """

    def __init__(
        self,
        artifact: Artifact,
        scorer: BoardScorer,
        *,
        maps: bool,
        tile_threshold: float | None,
        map_threshold: float | None,
    ) -> None:
        thresholds = artifact.thresholds
        self.artifact, self.rules, self.maps = artifact, artifact.rules, maps
        self.threads, self.batch = scorer.threads, scorer.batch
        self.tile_threshold = _threshold("tile_threshold", tile_threshold, thresholds.tile)
        self.map_threshold = _threshold("map_threshold", map_threshold, thresholds.map)
        self._by_map = thresholds.board == "map-peak"
        self.threshold = self.map_threshold if self._by_map else self.tile_threshold
        self.provider, self.device = scorer.session.provider, scorer.session.device
        self.precision, self.stage_device = scorer.session.precision, scorer.stage_device
        self._scorer: BoardScorer | None = scorer

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        provider: str = "cpu",
        threads: int | None = None,
        batch: int | None = None,
        *,
        device_id: int = 0,
        tile_threshold: float | None = None,
        map_threshold: float | None = None,
        maps: bool = True,
        build_engine: bool = False,
    ) -> Detector:
        """Open an artifact.

        Parameters
        ----------
        path
            The folder ``NAME.kad``, of any method.
        provider
            ``"cpu"``, ``"cuda"`` or ``"tensorrt"``: what runs the network. Never replaced by
            another. With ``"cuda"`` PatchCore's tiles are cut and searched on the GPU too.
        threads
            Threads of one call; None: all that the process may use.
        batch
            Tiles in memory at a time; None: 64 with ``"cuda"``, else 16. An artifact that scores in
            windows has one window there.
        device_id
            Which GPU.
        tile_threshold, map_threshold
            Used instead of the artifact's own, when given.
        maps
            False: scores alone, which takes less time: no map and no regions. The artifact must
            decide boards by their largest tile then. CutPaste's Grad-CAM is not computed.
        build_engine
            True: TensorRT may build an engine where there is none, which takes minutes; otherwise
            that is an error. ``kad-export tensorrt`` builds it beforehand.

        Raises
        ------
        ArtifactError
            The artifact is missing, damaged or too new.
        ProviderUnavailableError, MissingDependencyError
            The network cannot run as asked.
        InvalidArgumentError
            An option is out of range, or boards cannot be decided without maps.
        """
        threads = default_threads() if threads is None else threads
        batch = (64 if provider == "cuda" else 16) if batch is None else batch
        if threads < 1 or batch < 1:
            raise InvalidArgumentError(
                f"threads and batch: expected at least 1, got {threads} and {batch}"
            )
        artifact = Artifact.open(path)
        if not maps and artifact.thresholds.board == "map-peak":
            raise InvalidArgumentError(
                f"maps: {path} decides boards by the peak of their map, which is not made with "
                "maps=False; open it with maps, or export it with --board-score largest-tile"
            )
        running: dict[str, Any] = {"device_id": device_id, "build_engine": build_engine}
        return cls(
            artifact,
            open_scorer(
                artifact, provider=provider, maps=maps, threads=threads, batch=batch, **running
            ),
            maps=maps,
            tile_threshold=tile_threshold,
            map_threshold=map_threshold,
        )

    def close(self) -> None:
        """Free all that it holds; no other thread may be scoring. Safe to call twice."""
        if self._scorer is not None:
            self._scorer.close()
        self._scorer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Detector({str(self.artifact.path)!r}, provider={self.provider!r})"

    def score(
        self,
        image: NDArray[Any] | str | os.PathLike[str],
        annotation: Annotation | None = None,
        pixel_format: str | None = None,
        *,
        keep_patches: bool = False,
    ) -> Result:
        """Score a board.

        Parameters
        ----------
        image
            A file, or an array: (H, W) grey or (H, W, 3) RGB, uint8 or uint16, or (H, W, 4) RGBA,
            uint8; any row stride.
        annotation
            Active areas and label stickers; None: all of the image is scored.
        pixel_format
            Where dtype and shape do not say it: ``"bgr8"``, ``"bgra8"``, ``"bgr16"``.
        keep_patches
            Whether the result holds the tiles' own maps too: ``patches`` and ``patch_rows``.

        Raises
        ------
        ImageReadError, UnsupportedImageError
            The file cannot be read, or its pixels are of a kind that is not scored.
        ImageTooSmallError
            The image, or an active area, is smaller than a tile.
        AnnotationError
            A rectangle leaves the image, or the stickers leave no tile, or the rules nothing to
            judge.
        """
        if isinstance(image, np.ndarray):
            scores = self.board_scores(image, annotation, pixel_format, keep_patches=keep_patches)
            return self._result(scores, image.shape)
        if not isinstance(image, (str, os.PathLike)):
            raise InvalidArgumentError(
                f"image: expected an array or a file's path, got {type(image).__name__}"
            )
        if pixel_format is not None:
            raise InvalidArgumentError("pixel_format is for arrays; a file says its own")
        watch = Stopwatch()
        with watch.stage("read"):
            pixels = read_image(image)
        try:
            scores = self.board_scores(pixels, annotation, keep_patches=keep_patches)
        except (AnnotationError, ImageTooSmallError, UnsupportedImageError) as error:
            raise type(error)(f"{image}: {error}") from error
        result = self._result(scores, pixels.shape)
        return replace(
            result, image_name=Path(image).name, timings_ms={**watch.ms, **result.timings_ms}
        )

    def board_scores(
        self,
        image: NDArray[Any],
        annotation: Annotation | None,
        pixel_format: str | None = None,
        *,
        keep_patches: bool = False,
    ) -> BoardScores:
        """Give what the stages find on a board by the rules, before any threshold.

        See :meth:`score`.
        """
        if self._scorer is None:
            raise InvalidArgumentError("this detector is closed; open the artifact again")
        try:
            scores = self._scorer.score(image, annotation, pixel_format, keep_patches=keep_patches)
        except BaseException:
            self._forget([image])  # perhaps it was not asked for: the array may be filled anew
            raise
        return judge_board(
            scores,
            self.rules,
            size=(image.shape[0], image.shape[1]),
            annotation=annotation,
            tile=self.artifact.manifest.preprocessing.tile,
            by_map=self._by_map,
        )

    def score_batch(
        self,
        images: Iterable[NDArray[Any] | str | os.PathLike[str]],
        annotations: Iterable[Annotation | None] | None = None,
    ) -> list[Result]:
        """Score several boards, as :meth:`score` does each; arrays are sent ahead.

        The results hold the maps: for many large boards iterate, call :meth:`send_ahead` with the
        next one and :meth:`score` with this one.
        """
        boards = list(images)
        given = [None] * len(boards) if annotations is None else annotations
        results = []
        try:
            for i, (image, annotation) in enumerate(zip(boards, given, strict=True)):
                for following in boards[i + 1 : i + 2]:
                    if isinstance(following, np.ndarray):
                        self.send_ahead(following)
                results.append(self.score(image, annotation))
        except BaseException:
            self._forget(boards)
            raise
        return results

    def send_ahead(self, image: NDArray[Any]) -> None:
        """Say which board comes next: on a GPU it is uploaded while another one is scored.

        Give the same array to :meth:`score` later, unchanged: a board is known by its array, and
        what was sent is scored. It is no mistake not to score it; but an array that was not scored
        and is filled with another board has to be sent ahead again before that is. A board is
        forgotten when :meth:`score` raises. On the CPU this does nothing.

        Parameters
        ----------
        image
            As :meth:`score` takes it.
        """
        if self._scorer is not None:
            self._scorer.send_ahead(image)

    def score_folder(
        self,
        folder: str | os.PathLike[str],
        annotations: Mapping[str, Annotation] | None = None,
    ) -> Iterator[tuple[Path, Result]]:
        """Score the images of a folder and its subfolders one by one, by name.

        Parameters
        ----------
        folder
            Ground truth (``*_groundtruth.png``, ``*_mask.png``) and hidden files are left out.
        annotations
            What :func:`kad_sdk.read_annotations` gives; every image has to be in it.
        """
        for path in list_images(folder):
            annotation = None if annotations is None else find_annotation(annotations, path)
            yield path, self.score(path, annotation)

    def _forget(self, images: Iterable[Any]) -> None:
        """Drop boards that were sent ahead and will not be asked for."""
        for image in images:
            if self._scorer is not None and isinstance(image, np.ndarray):
                self._scorer.forget(image)

    def _result(self, scores: BoardScores, shape: tuple[int, ...]) -> Result:
        """Apply the thresholds, and bring map and regions to the image's own pixels."""
        size, frame = (shape[0], shape[1]), scores.frame
        watch = Stopwatch()
        board_map, regions = scores.map, tuple[Region, ...]()
        if scores.map is not None and scores.board is not None:
            with watch.stage("regions"):
                records = scores.board.regions(
                    scores.map,
                    threshold=self.map_threshold,
                    min_area_px=scores.min_area_px or self.artifact.thresholds.min_region_area_px,
                )
                regions = tuple(self._region(record, size, frame) for record in records)
                board_map = (
                    scores.map
                    if size == frame
                    else resize_map(scores.map, *size, threads=self.threads)
                )
                scores.board.close()
        settings = self.artifact.thresholds
        tau, scale = self.tile_threshold, settings.tile_scale
        judged, factors = scores.judged, scores.factors
        tiles = tuple(
            TileScore(x, y, raw, _normalised(score, tau, scale), score >= tau, factor)
            for (x, y), raw, score, factor in zip(
                scores.xy.tolist(),
                scores.scores.tolist(),
                judged.tolist(),
                [1.0] * len(judged) if factors is None else factors.tolist(),
                strict=True,
            )
        )
        if self._by_map:
            score, scale = scores.map_score(), settings.map_scale
        else:
            score, scale = float(np.nanmax(judged)), settings.tile_scale
        return Result(
            score=score,
            normalised_score=_normalised(score, self.threshold, scale),
            anomalous=score >= self.threshold,
            threshold=self.threshold,
            tile_threshold=self.tile_threshold,
            map_threshold=self.map_threshold,
            tiles=tiles,
            map=board_map,
            regions=regions,
            timings_ms={**scores.timings, **watch.ms},
            image_size=size,
            frame_size=frame,
            scored_share=scores.scored_share,
            rules=self.rules,
            embeddings=scores.tiles.embeddings,
            patches=scores.tiles.patches,
            patch_rows=scores.tiles.rows,
        )

    def _region(
        self,
        record: RegionRecord,
        size: tuple[int, int],
        frame: tuple[int, int],
    ) -> Region:
        sy, sx = size[0] / frame[0], size[1] / frame[1]
        x, y = math.floor(record.x * sx), math.floor(record.y * sy)
        return Region(
            x=x,
            y=y,
            width=min(math.ceil((record.x + record.width) * sx), size[1]) - x,
            height=min(math.ceil((record.y + record.height) * sy), size[0]) - y,
            area_px=max(1, round(record.area_px * sx * sy)),
            peak=record.peak,
            peak_xy=(int((record.peak_x + 0.5) * sx), int((record.peak_y + 0.5) * sy)),
            distance=record.distance,
            nearest=self.training_patch(record.bank_row),
        )

    def training_patch(self, row: int) -> Nearest | None:
        """Say where a bank row came from; None for a method without a bank."""
        if not isinstance(self.artifact, PatchCoreArtifact):
            return None
        x, y = self.artifact.source_xy[row].tolist()
        return Nearest(self.artifact.manifest.bank.images[self.artifact.source_image[row]], x, y)


def open_scorer(
    artifact: Artifact, *, provider: str, build_engine: bool, **running: Any
) -> BoardScorer:
    """Open what scores an artifact's tiles with a provider.

    `running` holds ``maps``, ``threads``, ``batch`` and ``device_id``, as :meth:`Detector.open`
    takes them. Raises as that does.
    """
    running["provider"] = provider
    if isinstance(artifact, PatchCoreArtifact) and artifact.manifest.patchcore.mode == "windows":
        return WindowScorer.open(artifact, build_engine=build_engine, **running)
    if isinstance(artifact, PatchCoreArtifact) and (provider, build_engine) == ("cuda", False):
        from kad_sdk.cuda import CudaPatchCoreScorer  # noqa: PLC0415 - needs numba

        del running["provider"]
        return CudaPatchCoreScorer.open(artifact, **running)
    running["build_engine"] = build_engine
    if isinstance(artifact, PatchCoreArtifact):
        return PatchCoreScorer.open(artifact, **running)
    if isinstance(artifact, CutPasteArtifact):
        return CutPasteScorer.open(artifact, **running)
    raise TypeError(f"expected the artifact of a method, got {type(artifact).__name__}")


def _normalised(score: float, tau: float, scale: float) -> float:
    """Give the logistic function, unoverflown; 0 for NaN, a tile that is not judged."""
    return 0.0 if math.isnan(score) else 0.5 * (1 + math.tanh(0.5 * (score - tau) / scale))


def _threshold(name: str, value: float | None, own: float) -> float:
    if value is None:
        return own
    if not FLOAT32_TINY <= value <= FLOAT32_MAX:
        raise InvalidArgumentError(f"{name}: expected a float32 number above 0, got {value}")
    return float(value)
