"""The figures that the thesis published: tables 6.1 and 6.2.

They were measured on the boards of the thesis, which are not public, and stand beside figures of
other boards to compare the order of methods, not the figures themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published", "best_published", "find_published"]


@dataclass(frozen=True)
class Published:
    """A row of the thesis' table 6.1 (PatchCore) or 6.2 (CutPaste).

    Attributes
    ----------
    table, number : str, int
        Where it stands.
    method, category, backbone, denoised
        What it is of.
    roc_auc, accuracy, precision, recall : float
        As printed; ROC-AUC as a fraction.
    confusion_matrix : ((int, int), (int, int))
        ``[[true negatives, false alarms], [missed, found]]``, tiles.
    """

    table: str
    number: int
    method: str
    category: str
    backbone: str
    denoised: bool
    roc_auc: float
    accuracy: float
    precision: float
    recall: float
    confusion_matrix: tuple[tuple[int, int], tuple[int, int]]


def _rows(table: str, method: str, rows: str) -> tuple[Published, ...]:
    found = []
    for line in rows.strip().splitlines():
        number, category, backbone, blur, *figures = line.split()
        roc_auc, accuracy, precision, recall = (float(text) for text in figures[:4])
        tn, fp, fn, tp = (int(text) for text in figures[4:])
        row = (table, int(number), method, category, backbone, blur == "with")
        matrix = ((tn, fp), (fn, tp))
        found.append(Published(*row, roc_auc / 100, accuracy, precision, recall, matrix))
    return tuple(found)


PUBLISHED = (
    *_rows(
        "6.1",
        "patchcore",
        """
        1 white-with-edges resnet50 with    74.51 0.7143 0.0457 0.7571 5511 2212  34 106
        2 white-with-edges resnet50 without 87.63 0.8730 0.1005 0.7714 6757  966  32 108
        3 white            resnet50 without 89.06 0.9608 0.3852 0.7909 8618  308  51 193
        4 white            resnet50 with    79.63 0.8609 0.1277 0.7254 7718 1208  67 177
        5 white-with-edges resnet18 without 74.03 0.8561 0.0985 0.5409 7719 1207 112 132
        6 white            resnet18 without 76.62 0.8323 0.0936 0.6106 7484 1442  95 149
        """,
    ),
    *_rows(
        "6.2",
        "cutpaste",
        """
        1 white-with-edges resnet50 without 79.50 0.7116 0.0445 0.7428  5492 2231 36 104
        2 white-with-edges resnet18 without 82.56 0.893  0.1012 0.6357  6933  790 51  89
        3 white            resnet50 without 78.67 0.8004 0.0839 0.6557  7180 1746 84 160
        4 white            resnet18 without 80.90 0.8729 0.1271 0.64344 7848 1078 87 157
        5 white-with-edges resnet50 with    64.81 0.6563 0.028  0.5428  5085 2638 64  76
        6 white            resnet50 with    84.82 0.9256 0.2177 0.6926  8319  607 75 169
        7 white-with-edges resnet18 with    79.90 0.9261 0.1402 0.6142  7196  527 54  86
        8 white            resnet18 with    78.54 0.8074 0.0886 0.6721  7240 1686 80 164
        """,
    ),
)
"""All rows, in the order of the tables. The matrix of no. 5 of table 6.1 counts White's tiles."""


def find_published(
    method: str, category: str, backbone: str, *, denoised: bool
) -> Published | None:
    """Give the row of the thesis that a run corresponds to, if there is one."""
    wanted = (method, category, backbone, denoised)
    for row in PUBLISHED:
        if (row.method, row.category, row.backbone, row.denoised) == wanted:
            return row
    return None


def best_published(method: str, category: str) -> Published | None:
    """Give the row with the largest ROC-AUC: that of tables 6.3 (white) and 6.4 (with edges)."""
    rows = [row for row in PUBLISHED if (row.method, row.category) == (method, category)]
    return max(rows, key=lambda row: row.roc_auc, default=None)
