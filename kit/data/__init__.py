"""From what people have to fastai DataLoaders: labels, table, splits, check, DataBlock, and the one image loader."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
