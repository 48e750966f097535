"""Loss and accuracy for TensorBoard, each step once, however often the training was stopped.

A state holds the curves up to it. A training that goes on writes those anew and continues them;
what an earlier process had written beyond the state is gone with its files.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from kad_sdk.storage import writing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from kad_export.cutpaste.run_folder import Curves, Validation

__all__ = ["CurveWriter"]


class CurveWriter:
    """Writes curves into a folder of TensorBoard's; a context manager.

    Parameters
    ----------
    folder : Path
        Replaced when it exists.
    curves : Curves
        What there is so far; it is written at once.
    learning_rate : callable
        Step to learning rate.
    """

    def __init__(self, folder: Path, curves: Curves, learning_rate: Callable[[int], float]) -> None:
        self._curves, self._learning_rate = curves, learning_rate
        self._steps = 0
        with writing(folder):
            if folder.exists():
                shutil.rmtree(folder)
            self._writer = SummaryWriter(str(folder))
        for validation in curves.validations:
            self.validated(validation)
        self.advance()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def advance(self) -> None:
        """Write the steps that the curves have gained."""
        curves = self._curves
        for step in range(self._steps, len(curves.loss)):
            seconds = curves.time_ms[step] / 1000
            for name, value in (
                ("train/loss", curves.loss[step]),
                ("train/accuracy", curves.accuracy[step]),
                ("train/learning_rate", self._learning_rate(step)),
            ):
                self._writer.add_scalar(name, value, step, walltime=seconds)
        self._steps = len(curves.loss)

    def validated(self, validation: Validation) -> None:
        """Write what held-out tiles said after an epoch, at the epoch's last step."""
        seconds = self._curves.time_ms[validation.step] / 1000
        for name, value in (
            ("held-out/loss", validation.loss),
            ("held-out/accuracy", validation.accuracy),
        ):
            self._writer.add_scalar(name, value, validation.step, walltime=seconds)
        self._writer.flush()
