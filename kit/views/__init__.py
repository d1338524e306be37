"""Views of a result: plain values, and the Jinja templates of the report, the model card, the page and the Space."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
