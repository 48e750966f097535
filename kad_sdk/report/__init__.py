"""The report of a detector on a data set: one HTML page that needs nothing else.

:func:`write_report` scores the test images as :func:`kad_sdk.evaluate` does and lays out the same
figures with pictures: every board, what was missed, what was flagged wrongly, where tiles disagree.
"""

from __future__ import annotations

from kad_sdk.report.build import write_report

__all__ = ["write_report"]
