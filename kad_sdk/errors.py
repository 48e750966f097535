"""Errors of the SDK: each says what is wrong, what was expected, what was given, what to do.

Every error a user can cause derives from :class:`KadError`; the command line prints its text and
exits with 1. A new failure gets a class of its own when a caller could want to tell it apart.
"""

from __future__ import annotations

__all__ = [
    "AnnotationError",
    "ArtifactCorruptError",
    "ArtifactError",
    "ArtifactVersionError",
    "CalibrationError",
    "DatasetError",
    "ImageReadError",
    "ImageTooSmallError",
    "InvalidArgumentError",
    "KadError",
    "MissingDependencyError",
    "NativeLibraryError",
    "NotFiniteError",
    "OutputError",
    "ProviderUnavailableError",
    "ScoreLogError",
    "UnsupportedImageError",
]


class KadError(Exception):
    """Base of all errors that the SDK raises on purpose."""


class InvalidArgumentError(KadError, ValueError):
    """An argument has the wrong value, shape or dtype."""


class NotFiniteError(KadError, ValueError):
    """NaN or Inf where numbers are needed."""


class NativeLibraryError(KadError):
    """The compiled core is missing, of another ABI, or failed inside."""


class MissingDependencyError(KadError, ImportError):
    """An optional package is needed for this call and is not installed."""


class ImageReadError(KadError):
    """An image file is missing, truncated or cannot be decoded."""


class UnsupportedImageError(ImageReadError):
    """An image was decoded, but its pixel format is not one the SDK scores."""


class ImageTooSmallError(KadError, ValueError):
    """An image, or an active area in it, is smaller than one tile."""


class AnnotationError(KadError):
    """An annotation is malformed, names no such image, or has a rectangle outside its image."""


class DatasetError(KadError):
    """A data folder has no known layout, no images, or no tile that passes the filters."""


class ArtifactError(KadError):
    """An artifact cannot be opened or written."""


class ArtifactCorruptError(ArtifactError):
    """An artifact's file is missing, superfluous, of another size or of another hash."""


class ArtifactVersionError(ArtifactError):
    """An artifact was written in a format that this version does not read."""


class CalibrationError(KadError):
    """A threshold cannot be calibrated from the tiles at hand by the method asked for."""


class ProviderUnavailableError(KadError):
    """The execution provider asked for cannot be used here. There is never a silent fallback."""


class OutputError(KadError):
    """A result could not be written, for example because the disk is full."""


class ScoreLogError(KadError):
    """A log of scores cannot be read, or its boards were scored in different ways."""
