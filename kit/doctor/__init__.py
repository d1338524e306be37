"""What this machine can do, and how to fix what it cannot: facts are gathered, then judged by a pure function.

for finding in examine(gather()): print(finding.verdict, finding.name, finding.what, finding.fix)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
