"""Kernels of search and selection for NVIDIA GPUs, and their NumPy reference.

:mod:`kad_kernels.reference` defines what every engine must compute; it is slow and obvious, and the
oracle of all tests. :mod:`kad_kernels.nearest` (search) and :mod:`kad_kernels.kcenter` (selection)
give the same bits on a GPU; they need numba, which nothing here imports before it is asked for.
"""

from __future__ import annotations

from kad_kernels.reference import distances, k_center

__all__ = ["distances", "k_center"]
