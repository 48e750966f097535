"""PatchCore's boards in windows: each pixel goes through the network once.

The network sees large windows of a board instead of tiles that overlap. Each has a halo as wide as
a feature reaches; what is found there is not used. So every patch has the feature that one pass
over the whole board would give, wherever the windows lie. Tiles get their scores from the patches
whose centres lie in them; the map is made once, for all of the board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kad_sdk._native import NativeWindows, WindowSizes, preprocess_window
from kad_sdk.errors import InvalidArgumentError, ProviderUnavailableError
from kad_sdk.patchcore import BankScorer
from kad_sdk.prepare import check_image
from kad_sdk.scoring import BoardScores, Stopwatch, TileFindings, scored_share

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from kad_sdk.annotations import Annotation
    from kad_sdk.artifact import PatchCoreArtifact
    from kad_sdk.manifest import PatchCore, Windows

__all__ = ["WindowScorer", "check_provider", "window_sizes"]


def window_sizes(windows: Windows) -> WindowSizes:
    """Give the manifest's entry as the compiled stages take it."""
    return WindowSizes(
        window=windows.window_px,
        halo=windows.halo_px,
        align=windows.align_px,
        patch=windows.patch_px,
        label_margin=windows.label_margin_px,
    )


def check_provider(provider: str | None) -> None:
    """Refuse a provider that cannot run windows.

    Raises
    ------
    ProviderUnavailableError
        It is TensorRT.
    """
    if provider == "tensorrt":
        raise ProviderUnavailableError(
            "provider 'tensorrt' builds its engine for one size, and this artifact's windows "
            "have several; use provider 'cpu' or 'cuda', or export with --mode tiles"
        )


class WindowScorer(BankScorer):
    """Scores boards in windows, with a network of dynamic height and width.

    Its stages are ``preprocess``, ``network``, ``search`` and ``map``.
    """

    def _take_settings(self, patchcore: PatchCore) -> None:
        if patchcore.windows is None:
            raise InvalidArgumentError(
                "this artifact was fitted on tiles: its bank and thresholds hold for them alone; "
                "score it in tiles, or export it with --mode windows"
            )
        self._sizes = window_sizes(patchcore.windows)

    @classmethod
    def open(cls, artifact: PatchCoreArtifact, **running: Any) -> Self:
        """As :meth:`BankScorer.open`, but for a provider that cannot run windows."""
        check_provider(running.get("provider"))
        return super().open(artifact, **running)

    def score_tiles(
        self,
        tiles: NDArray[np.float32],
        watch: Stopwatch | None = None,  # noqa: ARG002 - as the base's
    ) -> TileFindings:
        """Refuse: what surrounds a tile is part of its score.

        Raises
        ------
        InvalidArgumentError
            Always.
        """
        raise InvalidArgumentError(
            f"this artifact scores boards in windows, not {len(tiles)} tiles without what "
            "surrounds them; score the board, or export with --mode tiles"
        )

    def score(
        self,
        image: NDArray[Any],
        annotation: Annotation | None = None,
        pixel_format: str | None = None,
        *,
        keep_patches: bool = True,
    ) -> BoardScores:
        """Score a board; see :meth:`BoardScorer.score`."""
        check_image(image)
        watch = Stopwatch()
        with watch.stage("prepare"):
            prepared = self.prepare(image, pixel_format)
            format_now = pixel_format if prepared is image else None
            frame = (prepared.shape[0], prepared.shape[1])
            areas = self._areas(image.shape[:2], frame, annotation)
            xy = self._plan((image.shape[0], image.shape[1]), frame, areas)
            board = NativeWindows(
                *frame,
                sizes=self._sizes,
                tile=self._preprocessing.tile,
                xy=xy,
                sigma=self._map.sigma,
                radius=self._map.radius,
                borders=areas.borders,
                labels=areas.labels,
            )
        for number in range(len(board.windows)):
            self._score_window(board, number, prepared, format_now, watch)
        with watch.stage("search"):
            found = TileFindings(*board.tiles())
        board_map, share = None, None
        if self._grid is not None:
            with watch.stage("map"):
                board_map = board.map(threads=self.threads)
                share = scored_share(board_map, areas)
        if not keep_patches:
            found = found.without_patches()
        return BoardScores(xy, found, frame, board_map, board, dict(watch.ms), scored_share=share)

    def _score_window(
        self,
        board: NativeWindows,
        number: int,
        image: NDArray[Any],
        pixel_format: str | None,
        watch: Stopwatch,
    ) -> None:
        window = board.windows[number]
        with watch.stage("preprocess"):
            pixels = preprocess_window(
                image,
                window.rect,
                mean=self._preprocessing.mean,
                std=self._preprocessing.std,
                pixel_format=pixel_format,
                threads=self.threads,
            )
        with watch.stage("network"):
            maps = self.session.run(pixels)
        with watch.stage("search"):
            board.score(
                number,
                self._index,
                maps,
                reweighting=self._patchcore.reweighting,
                neighbors=self._neighbors,
                n_neighbors=self._patchcore.n_neighbors,
                threads=self.threads,
            )

    def map_of(self, scores: BoardScores, keep: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Give the map (H, W) that some of a board's tiles make alone; `keep` is (n,)."""
        if not isinstance(scores.board, NativeWindows):
            raise InvalidArgumentError("scores: expected those of a board scored in windows")
        return scores.board.map(keep, threads=self.threads)
