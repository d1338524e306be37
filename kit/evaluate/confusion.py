"""Which classes a confusion matrix shows where there are more than fit.

confused_most({(0, 1): 3, (0, 0): 9}, classes=2)         # [0, 1]
"""

from collections.abc import Mapping

MOST_CLASSES = 25


def confused_most(cells: Mapping[tuple[int, int], int], classes: int) -> list[int]:
    """The classes that a matrix shows: all of them up to 25, and of more those of the most frequent confusions.

    cells: how often class (true, predicted), by number, was found; what is missing counts as 0. Of many classes without
    a confusion none is shown.
    """
    if classes <= MOST_CLASSES:
        return list(range(classes)) if cells else []
    shown: set[int] = set()
    for pair in sorted((pair for pair in cells if pair[0] != pair[1]), key=lambda pair: -cells[pair]):
        if len(shown | set(pair)) <= MOST_CLASSES:
            shown |= set(pair)
    return sorted(shown)
