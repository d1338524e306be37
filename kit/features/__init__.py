"""Features of images by a pretrained body: computed once for each image and stored in kit's cache."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
