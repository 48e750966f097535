"""A training's folder: what was asked for, where it stands, the best network, the curves.

::

    NAME.run/
      run.json              what the run was started with
      last.safetensors      network, optimizer, position and curves; replaced every minute or so
      best.safetensors      the checkpoint of the epoch with the lowest held-out loss
      curves/               TensorBoard's files

Each file is replaced at once, so a kill at any moment leaves a run that can go on. One training
at a time holds the folder's lock. No generator's state is kept: every random draw hangs on the seed
and its place in the training alone.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kad_export.cutpaste.checkpoint import (
    check_state,
    read_document,
    to_arrays,
    to_tensors,
    write_document,
)
from kad_export.errors import CheckpointError
from kad_sdk.errors import OutputError
from kad_sdk.storage import locked_folder, made_folder, strict_json, write_atomic, writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

__all__ = ["Curves", "Position", "RunFolder", "Validation"]

FORMAT = "kad-cutpaste-run"
FORMAT_VERSION = 1
_LIMIT_BYTES = 16 << 20


@dataclass(frozen=True)
class Validation:
    """What held-out tiles and their augmentations said after an epoch; `step` counts from 0."""

    epoch: int
    step: int
    loss: float
    accuracy: float


@dataclass
class Curves:
    """Loss and accuracy of every step so far, the time of each, and the epochs' validations."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    time_ms: list[int] = field(default_factory=list)  # since 1970
    validations: list[Validation] = field(default_factory=list)

    @property
    def best(self) -> Validation | None:
        """The validation with the lowest loss, the first of equals."""
        return min(self.validations, key=lambda v: v.loss, default=None)


@dataclass
class Position:
    """Where a training stands: full epochs, and steps of the one that has begun."""

    epoch: int = 0
    step: int = 0
    finished: bool = False


class RunFolder:
    """The files of one training.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings, self.last = path / "run.json", path / "last.safetensors"
        self.best, self.curves = path / "best.safetensors", path / "curves"

    def open(self, settings: Mapping[str, Any], *, resume: bool) -> bool:
        """Make the folder for a new run, or check that the run in it is the one asked for.

        Returns
        -------
        bool
            Whether there is a state to go on from.

        Raises
        ------
        OutputError
            The folder holds a run and `resume` is not set, or something else, or cannot be made.
        CheckpointError
            The run was started with other settings; the text names the first that differs.
        """
        self.check(resume=resume)
        if not self.settings.exists():
            self._make(settings)
            return False
        self._compare(settings)
        return self.last.exists()

    def check(self, *, resume: bool) -> None:
        """Refuse a folder that holds a run which is not to go on, or anything else.

        Raises
        ------
        OutputError
            It does.
        """
        if self.settings.exists():
            if not resume:
                raise OutputError(
                    f"{self.path} holds a run already: go on with it by --resume, remove it, or "
                    "name another folder with --run"
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(
                f"{self.path} exists and holds no run: name another folder with --run"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other trainings out of it during the block.

        Raises
        ------
        OutputError
            Another one is at work in it, or it cannot be made.
        """
        busy = (
            f"another training is at work in {self.path}: wait until it has ended, or name another "
            "folder with --run"
        )
        with made_folder(self.path), locked_folder(self.path, busy=busy):
            yield

    def _make(self, settings: Mapping[str, Any]) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "format_version": FORMAT_VERSION, "settings": settings}
        write_atomic(self.settings, (json.dumps(document, indent=1) + "\n").encode())

    def _compare(self, settings: Mapping[str, Any]) -> None:
        try:
            document = strict_json(self.settings.read_bytes(), limit=_LIMIT_BYTES)
            started = document["settings"]
            version = (document["format"], document["format_version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.settings} cannot be read: {error}") from error
        if version != (FORMAT, FORMAT_VERSION):
            raise CheckpointError(
                f"{self.settings}: expected {FORMAT} {FORMAT_VERSION}, got {version[0]} "
                f"{version[1]}: go on with the version of kad-sdk that started the run"
            )
        now = json.loads(json.dumps(settings))  # tuples become lists, as in the file
        if _digest(now) == _digest(started):
            now["weights"] = started["weights"]  # the same, wherever they come from now
        difference = _first_difference(started, now)
        if difference is not None:
            name, was, given = difference
            raise CheckpointError(
                f"{self.path} was started with another configuration: {name}: expected "
                f"{json.dumps(was)}, got {json.dumps(given)}. Go on with the same, or start "
                "another run with --run"
            )

    def save(
        self,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        position: Position,
        curves: Curves,
    ) -> None:
        """Replace the state to go on from.

        Raises
        ------
        OutputError
            It cannot be written; the previous one is still there.
        """
        arrays = {f"network/{k}": v for k, v in to_arrays(network.state_dict()).items()}
        for number, state in optimizer.state_dict()["state"].items():
            given = {key: value for key, value in state.items() if value is not None}
            arrays |= {f"optimizer/{number}/{k}": v for k, v in to_arrays(given).items()}
        arrays["curves/loss"] = np.array(curves.loss, np.float32)
        arrays["curves/accuracy"] = np.array(curves.accuracy, np.float32)
        arrays["curves/time_ms"] = np.array(curves.time_ms, np.int64)
        document = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "position": dataclasses.asdict(position),
            "validations": [dataclasses.asdict(v) for v in curves.validations],
        }
        write_document(self.last, arrays, document)

    def restore(
        self, network: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Position, Curves]:
        """Load the state to go on from into network and optimizer.

        Raises
        ------
        CheckpointError
            It cannot be read, or is of another network.
        """
        arrays, document, _ = read_document(self.last)
        tensors = to_tensors(arrays)
        given = _below(tensors, "network/")
        check_state(given, network.state_dict(), str(self.last))
        try:
            position = Position(**document["position"])
            curves = Curves(
                loss=tensors["curves/loss"].tolist(),
                accuracy=tensors["curves/accuracy"].tolist(),
                time_ms=tensors["curves/time_ms"].tolist(),
                validations=[Validation(**entry) for entry in document["validations"]],
            )
            network.load_state_dict(given)
            optimizer.load_state_dict(
                optimizer.state_dict() | {"state": _numbered(_below(tensors, "optimizer/"))}
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{self.last}: not a state of this version: {error}") from error
        return position, curves


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _numbered(tensors: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """``{"3/step": t}`` as ``{3: {"step": t}}``, the form of an optimizer's state."""
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split("/")
        states.setdefault(int(number), {})[key] = tensor
    return states


def _digest(settings: Any) -> str | None:
    """Give the SHA-256 of the weights that a run starts from; None in a damaged file."""
    weights = settings.get("weights") if isinstance(settings, dict) else None
    return weights.get("sha256") if isinstance(weights, dict) else None


def _first_difference(
    was: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> tuple[str, Any, Any] | None:
    """Name the first entry that differs, and both its values; None when all are equal."""
    for key in dict.fromkeys((*was, *now)):
        old, new = was.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found = _first_difference(old, new, f"{prefix}{key}.")
            if found is not None:
                return found
        elif old != new:
            return f"{prefix}{key}", old, new
    return None
