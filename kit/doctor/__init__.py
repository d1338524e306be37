"""What this machine can do, and how to mend what it cannot: facts are gathered, then judged by a pure function.

for finding in examine(gather()): print(finding.verdict, finding.name, finding.what, finding.mend)
"""

from kit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Facts": "kit.doctor.facts",
        "Finding": "kit.doctor.facts",
        "examine": "kit.doctor.examination",
        "gather": "kit.doctor.gathering",
        "lines": "kit.doctor.report",
    },
)
