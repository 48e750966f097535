"""Checkpoints: one safetensors file that holds tensors and, as its metadata, what they belong to.

No pickle is read or written. The header's ``__metadata__`` has the one key ``kad`` with a JSON
document, so that tensors and document come and go together: a file is replaced at once or not at
all, whenever the process is killed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kad_export.cutpaste.network import CutPasteNet, NetworkConfig, build_cutpaste
from kad_export.cutpaste.options import TrainingOptions
from kad_export.errors import CheckpointError
from kad_sdk.errors import KadError
from kad_sdk.manifest import CutPasteTraining, Preprocessing, Training, Weights
from kad_sdk.schema import SchemaError, decode
from kad_sdk.storage import strict_json, write_atomic
from kad_sdk.tensors import encode_tensors, parse_tensors

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Checkpoint", "load_checkpoint", "read_document", "save_checkpoint", "write_document"]

FORMAT = "kad-cutpaste-checkpoint"
FORMAT_VERSION = 1
_LIMIT_BYTES = 16 << 20  # of a document
_ALIGNMENT = 64  # of the first tensor, in bytes


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and where it comes from.

    Attributes
    ----------
    config : NetworkConfig
        What the state dict fits.
    preprocessing : Preprocessing
        How boards became the tiles it was trained on; an export must use the same.
    state_dict : mapping of str to torch.Tensor
        Parameters and buffers of :class:`kad_export.cutpaste.network.CutPasteNet`.
    run : CutPasteTraining
        What the training did, as manifests tell it.
    options : TrainingOptions
        What it was started with; what may differ when it goes on has its default.
    weights : Weights
        What it started from.
    learnt : Training
        The boards it learnt from.
    """

    config: NetworkConfig
    preprocessing: Preprocessing
    state_dict: Mapping[str, torch.Tensor]
    run: CutPasteTraining
    options: TrainingOptions
    weights: Weights
    learnt: Training

    def network(self) -> CutPasteNet:
        """Build the network with these parameters, in eval mode."""
        network = build_cutpaste(self.config)
        network.load_state_dict(self.state_dict)
        return network


def save_checkpoint(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, torch.Tensor],
    config: NetworkConfig,
    preprocessing: Preprocessing,
    *,
    run: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path, state_dict, config, preprocessing
        As in `Checkpoint`.
    run
        The fields of :class:`kad_sdk.manifest.CutPasteTraining` but for the file's own digest.
    settings
        From :meth:`kad_export.cutpaste.material.Material.settings`.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": dataclasses.asdict(config),
        "preprocessing": dataclasses.asdict(preprocessing),
        "run": dict(run),
        "settings": dict(settings),
    }
    write_document(path, to_arrays(state_dict), document)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, and check that its tensors fit the network it names.

    Raises
    ------
    CheckpointError
        The file cannot be read, is no checkpoint, or its tensors belong to another network; the
        text names the first that does.
    """
    path = Path(path)
    arrays, document, sha256 = read_document(path)
    if document.get("format") != FORMAT or document.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: expected a {FORMAT} of version {FORMAT_VERSION}, got "
            f"{document.get('format')!r} of version {document.get('format_version')!r}: give the "
            "best.safetensors of a run"
        )
    try:
        config = NetworkConfig(**document["config"])
        preprocessing = decode(Preprocessing, document["preprocessing"], "preprocessing")
        run = decode(CutPasteTraining, {**document["run"], "checkpoint_sha256": sha256}, "run")
        settings = document["settings"]
        options = TrainingOptions.restored(settings)
        weights = decode(Weights, settings["weights"], "settings.weights")
        learnt = decode(Training, settings["learn"], "settings.learn")
    except (KeyError, TypeError, SchemaError, KadError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of this version: {error}") from error
    state = to_tensors(arrays)
    check_state(state, build_cutpaste(config).state_dict(), str(path))
    return Checkpoint(config, preprocessing, state, run, options, weights, learnt)


def check_state(
    given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], name: str
) -> None:
    """Raise CheckpointError unless names, shapes and dtypes are those expected, without NaN."""
    for key in [*expected, *given]:
        if key not in given or key not in expected:
            where = "is missing" if key not in given else "is not part of the network"
            raise CheckpointError(f"{name}: tensor {key} {where}: it is of another network")
        got, want = given[key], expected[key]
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            raise CheckpointError(
                f"{name}: tensor {key}: expected {want.dtype} {tuple(want.shape)}, got "
                f"{got.dtype} {tuple(got.shape)}: it is of another network"
            )
        if not bool(torch.isfinite(got).all()):
            raise CheckpointError(f"{name}: tensor {key} holds NaN or Inf; it cannot be used")


def to_arrays(state: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors of any device as arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """Arrays as tensors of their own memory; torch does not know of read-only memory."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def write_document(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    document: Mapping[str, Any],
) -> None:
    """Write arrays and a JSON document as one safetensors file, atomically.

    The same arrays and document give the same bytes.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    header, *bodies = encode_tensors(arrays)
    entries = json.loads(bytes(header[8:]))
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    entries["__metadata__"] = {"kad": text}
    encoded = json.dumps(entries, separators=(",", ":"), sort_keys=True).encode()
    encoded += b" " * (-(8 + len(encoded)) % _ALIGNMENT)
    write_atomic(Path(path), len(encoded).to_bytes(8, "little"), encoded, *bodies)


def read_document(
    path: str | os.PathLike[str],
) -> tuple[dict[str, NDArray[Any]], dict[str, Any], str]:
    """Read what `write_document` wrote.

    Returns
    -------
    arrays : dict of str to ndarray
        Read-only.
    document : dict
    sha256 : str
        Of the file.

    Raises
    ------
    CheckpointError
        The file cannot be read, is damaged, or has no such document.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        arrays = parse_tensors(data, str(path))
        header = strict_json(
            data[8 : 8 + int.from_bytes(data[:8], "little")], limit=2 * _LIMIT_BYTES
        )
        document = strict_json(header["__metadata__"]["kad"].encode(), limit=_LIMIT_BYTES)
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except KeyError as error:
        raise CheckpointError(
            f"{path}: a safetensors file without kad's metadata, so no checkpoint: give one that "
            "kad-export cutpaste has written"
        ) from error
    except (KadError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: the metadata holds no JSON object")
    return arrays, document, hashlib.sha256(data).hexdigest()
