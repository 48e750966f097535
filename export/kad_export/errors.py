"""Errors of training and export; all derive from :class:`kad_sdk.errors.KadError`."""

from __future__ import annotations

from kad_sdk.errors import KadError

__all__ = [
    "BackboneError",
    "CalibrationError",
    "ExportError",
    "MemoryBudgetError",
    "ParityError",
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


class CalibrationError(ExportError):
    """A threshold cannot be calibrated from the tiles at hand by the method asked for."""


class ParityError(ExportError):
    """The exported graph or the runtime disagrees with the PyTorch module."""
