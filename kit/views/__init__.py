"""What a result says, once as plain values, and the templates that show it: report, model card, page, Space."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
