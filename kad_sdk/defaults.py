"""Defaults that commands and the functions behind them share.

Nothing is imported here: ``--help`` shows them without NumPy or OpenCV.
"""

from __future__ import annotations

__all__ = ["PICTURE_SIDE", "REPORT_BOARDS", "REPORT_FINDINGS", "REPORT_PICTURE_SIDE"]

PICTURE_SIDE = 2048  # px: larger boards are shown scaled down
REPORT_BOARDS = 40  # whose map is on the page
REPORT_FINDINGS = 24  # of each sort
REPORT_PICTURE_SIDE = 1400  # px: longer side of a board's picture on the page
