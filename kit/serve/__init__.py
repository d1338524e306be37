"""A page and a REST API for a bundle, on one port, behind one security middleware."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
