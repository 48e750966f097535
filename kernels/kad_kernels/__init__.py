"""Kernels of search and selection, and their NumPy reference.

:mod:`kad_kernels.reference` defines what every engine must compute; it is slow and obvious, and the
oracle of all tests.
"""

from __future__ import annotations

from kad_kernels.reference import distances, k_center, nearest

__all__ = ["distances", "k_center", "nearest"]
