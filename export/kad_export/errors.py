"""Errors of training and export; all derive from :class:`kad_sdk.errors.KadError`."""

from __future__ import annotations

from kad_sdk.errors import KadError

__all__ = [
    "BackboneError",
    "BatchDependenceError",
    "CheckpointError",
    "DecisionFlipError",
    "DensityError",
    "ExperimentError",
    "ExportError",
    "GridError",
    "JobError",
    "MemoryBudgetError",
    "OutputMismatchError",
    "ParityError",
    "ScoreMismatchError",
    "TrainingError",
    "WeightsError",
]


class ExportError(KadError):
    """An artifact could not be made."""


class BackboneError(ExportError, ValueError):
    """Unknown backbone or layer."""


class WeightsError(ExportError):
    """Weights cannot be had, read, or do not belong to the network."""


class MemoryBudgetError(ExportError):
    """The stated memory or disk budget cannot hold the work."""


class JobError(ExportError):
    """An unfinished job cannot be gone on with, or the cluster cannot carry it."""


class DensityError(ExportError):
    """No density of normal tiles can be estimated from the embeddings at hand."""


class CheckpointError(ExportError):
    """A checkpoint cannot be read, or is of another network or another configuration."""


class TrainingError(ExportError):
    """A training cannot be started or cannot go on."""


class GridError(ExportError, ValueError):
    """A grid of experiments cannot be read, or asks for what there is not."""


class ExperimentError(ExportError):
    """A run of a grid failed, or its folder holds something else."""


class ParityError(ExportError):
    """The exported graph or the runtime disagrees with the PyTorch module."""


class OutputMismatchError(ParityError):
    """A base map of the ONNX graph differs from the PyTorch module's."""


class ScoreMismatchError(ParityError):
    """A patch distance or a tile score differs from PyTorch's."""


class DecisionFlipError(ParityError):
    """A golden tile is anomalous by PyTorch and normal by the runtime, or the other way round."""


class BatchDependenceError(ParityError):
    """A tile's score depends on the tiles that share its batch."""
