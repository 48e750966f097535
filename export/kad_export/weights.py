"""Where a network's weights come from, and loading them without running anyone's code.

A specification is one of

``imagenet``
    torchvision's ``IMAGENET1K_V1`` weights (those of the paper). Looked for in torch's cache of
    downloads, then in the folder named by ``KAD_WEIGHTS_DIR`` under torchvision's file name or, for
    resnet18, as ``resnet18_trunk.safetensors``; then downloaded.
a path to a ``.pth``, ``.pt`` or ``.safetensors`` file
    A state dict with torchvision's parameter names. Pickles are read by torch's restricted
    unpickler, which refuses anything but tensors and plain containers.
``random:SEED``
    torchvision's initialisation from that seed; for tests and trials.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import pickle
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchvision

from kad_export.backbones import Trunk, get_backbone
from kad_export.errors import WeightsError
from kad_sdk.errors import KadError, OutputError
from kad_sdk.storage import made_folder
from kad_sdk.tensors import read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Weights", "load_into_trunk", "load_weights"]

IMAGENET = "IMAGENET1K_V1"
SHARED_TRUNKS = {"resnet18": "resnet18_trunk.safetensors"}
"""Weights up to layer3 that may stand in for a whole checkpoint, by backbone."""
N_NAMED = 3  # how many keys an error names


@dataclass(frozen=True)
class Weights:
    """A network's parameters and what they are.

    Attributes
    ----------
    state_dict : mapping of str to torch.Tensor
        Parameters and buffers under torchvision's names.
    source : str
        ``"imagenet"``, ``"file"`` or ``"random"``.
    name : str
        What was used, without any path: a file name, ``"random:7"``.
    sha256 : str
        Of the file, or of the state dict when there is no file.
    """

    state_dict: Mapping[str, torch.Tensor]
    source: str
    name: str
    sha256: str


def load_weights(spec: str, backbone: str) -> Weights:
    """Get the weights that a specification names.

    Parameters
    ----------
    spec
        ``"imagenet"``, a path to ``.pth``, ``.pt`` or ``.safetensors``, or ``"random:SEED"``.
    backbone
        The network they are for, a key of :data:`kad_export.backbones.BACKBONES`.

    Raises
    ------
    BackboneError
        Unknown backbone.
    WeightsError
        The weights cannot be had or read, or hold NaN or Inf.
    """
    if spec == "imagenet":
        return _imagenet(backbone)
    if spec.startswith("random:"):
        return _random(spec, backbone)
    return _from_file(Path(spec), "file", Path(spec).name)


def load_into_trunk(trunk: Trunk, weights: Weights) -> None:
    """Copy weights into a cut network.

    Entries of the parts that were cut off, and batch norm's batch counters, may be missing or
    present; all others must be there with the right shape, and no other may be.

    Raises
    ------
    WeightsError
        When the weights belong to another network; the text names the first few differences.
    """
    expected = _without_counters(trunk.network.state_dict())
    cut = tuple(f"{name}." for name in trunk.removed)
    given = {
        key: value
        for key, value in _without_counters(weights.state_dict).items()
        if not key.startswith(cut)
    }
    differences = _differences(expected, given)
    if differences:
        more = len(differences) - N_NAMED
        listed = "; ".join(differences[:N_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise WeightsError(
            f"weights {weights.name} do not belong to this network: {listed}. "
            "Give the weights of the backbone that was chosen, or choose their backbone"
        )
    trunk.network.load_state_dict(given, strict=False)


def _differences(
    expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> list[str]:
    """Say for each key that does not match what was expected and what was given."""
    texts = []
    for key, value in expected.items():
        if key not in given:
            texts.append(f"{key} is missing (expected shape {tuple(value.shape)})")
        elif given[key].shape != value.shape:
            got = tuple(given[key].shape)
            texts.append(f"{key}: expected shape {tuple(value.shape)}, got {got}")
    texts += [f"{key} is not part of the network" for key in given if key not in expected]
    return texts


def _without_counters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out batch norm's counters: evaluation does not use them."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _random(spec: str, backbone: str) -> Weights:
    text = spec.removeprefix("random:")
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise WeightsError(
            f"weights {spec!r}: expected random:SEED with a whole number SEED from 0 to 2^63 - 1, "
            f"got {text!r}; give for example random:0"
        )
    state = get_backbone(backbone).create(int(text)).state_dict()
    return Weights(state, "random", f"random:{int(text)}", _digest(state))


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and values, by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = state[name].numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _imagenet(backbone: str) -> Weights:
    get_backbone(backbone)
    url = torchvision.models.get_model_weights(backbone)[IMAGENET].url
    checkpoint = url.rsplit("/", 1)[1]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    places = [cache / checkpoint, *_shared_places(backbone, checkpoint)]
    for path in places:
        if path.is_file():
            return _checked(path, checkpoint, backbone)
    try:
        with made_folder(cache):
            torch.hub.download_url_to_file(
                url, str(places[0]), _hash_prefix(checkpoint), progress=sys.stderr.isatty()
            )
    except (OSError, OutputError, RuntimeError, http.client.HTTPException) as error:
        raise WeightsError(_nowhere(backbone, places, url, error)) from error
    return _checked(places[0], checkpoint, backbone)


def _shared_places(backbone: str, checkpoint: str) -> list[Path]:
    """Files of the folder KAD_WEIGHTS_DIR that would do, best first."""
    folder = os.environ.get("KAD_WEIGHTS_DIR")
    if not folder:
        return []
    names = [checkpoint, SHARED_TRUNKS.get(backbone)]
    return [Path(folder) / name for name in names if name]


def _nowhere(backbone: str, places: list[Path], url: str, error: Exception) -> str:
    tried = "".join(f"\n  {place}: no such file" for place in places)
    return (
        f"ImageNet weights of {backbone} cannot be had. Tried:{tried}\n  {url}: {error}\n"
        "Give a checkpoint with --weights FILE (.pth or .safetensors), or put it into a folder and "
        "set KAD_WEIGHTS_DIR to that folder, or use --weights random:SEED for a trial without "
        "trained weights."
    )


def _hash_prefix(checkpoint: str) -> str:
    """Torchvision ends its file names with the first digits of their SHA-256."""
    return checkpoint.rsplit("-", 1)[1].split(".", maxsplit=1)[0]


def _checked(path: Path, checkpoint: str, backbone: str) -> Weights:
    """Read ImageNet weights; a file under torchvision's name must have torchvision's hash."""
    weights = _from_file(path, "imagenet", f"{backbone} {IMAGENET}, {path.name}")
    prefix = _hash_prefix(checkpoint)
    if path.name == checkpoint and not weights.sha256.startswith(prefix):
        raise WeightsError(
            f"{path}: expected a SHA-256 that begins with {prefix}, got {weights.sha256[:16]}...: "
            "the file is damaged; delete it and it is fetched again"
        )
    return weights


def _from_file(path: Path, source: str, name: str) -> Weights:
    readers = {".pth": _read_pickle, ".pt": _read_pickle, ".safetensors": _read_safetensors}
    if path.suffix.lower() not in readers:
        raise WeightsError(
            f"weights {str(path)!r}: expected imagenet, random:SEED, or a file that ends in "
            f".pth, .pt or .safetensors"
        )
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error
    state = readers[path.suffix.lower()](path)
    _check_values(path, state)
    return Weights(state, source, name, sha256)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        arrays = read_tensors(path.resolve())
    except KadError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error}") from error
    # A copy: the mapped arrays are read-only, which torch does not know.
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is raised
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"weights file {path} is refused: it is no plain state dict, and reading it could run "
            f"code ({reason}). Save it as torch.save(model.state_dict(), FILE)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"weights file {path} is damaged or no PyTorch file: {reason}"
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        keys = list(loaded)[:N_NAMED] if isinstance(loaded, dict) else type(loaded).__name__
        raise WeightsError(
            f"weights file {path}: expected a state dict (names to tensors), got {keys}. "
            "Save it as torch.save(model.state_dict(), FILE)"
        )
    return loaded


def _check_values(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    for name, value in _without_counters(state).items():
        if not value.is_floating_point():
            raise WeightsError(f"{path}: {name} is {value.dtype}, expected floating point")
        if not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{path}: {name} holds NaN or Inf; the file cannot be used")
