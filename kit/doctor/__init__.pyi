from .examination import examine, gather
from .findings import Finding, lines

__all__ = [
    "Finding",
    "examine",
    "gather",
    "lines",
]
