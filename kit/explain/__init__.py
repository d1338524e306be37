"""One training step of a finished run, computed again by hand with `kit.mechanism`, as a page for students."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
