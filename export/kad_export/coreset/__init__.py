"""Coreset selection: greedy k-center on a sparse random projection (PatchCore, equation 4.4).

The selection is exact: index by index that of plain greedy k-center, which reads all points once
for every centre. It is reached with few passes ("lazy batches"). Between two passes every point
keeps the distance to its nearest centre *as of the last pass*, which can only be too large. The
points with the largest of these form a pool, in which greedy runs with exact distances; as long as
the farthest of the pool precedes every point outside it, it is the farthest of all. Then the
centres chosen meanwhile are compared with all points in one pass, and the next pool is drawn.

One driver (``driver.py``) does this with any workers (``workers.py``): arrays, files, GPUs, or
actors on other machines. Every distance is that of the defined arithmetic (float32 direct
differences in a fixed order), so the selection depends neither on the workers, their number and
chunks, nor on threads or the size of the pool.
"""

from kad_export.coreset.driver import Coreset
from kad_export.coreset.projection import Projection, projected_dims
from kad_export.coreset.select import BACKENDS, k_center, select_coreset
from kad_export.coreset.workers import CHUNK_ROWS, Points, default_pool_rows

__all__ = [
    "BACKENDS",
    "CHUNK_ROWS",
    "Coreset",
    "Points",
    "Projection",
    "default_pool_rows",
    "k_center",
    "projected_dims",
    "select_coreset",
]
