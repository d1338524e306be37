"""kit turns a folder of labelled images into a classifier that people can trust, share and see through.

import kit; run = kit.fine_tune("pets/images", label=kit.is_cat)
"""

import warnings

import lazy_loader

__version__ = "0.1.0"

# Importing fastai makes torch warn about its own deprecated torch.jit functions, which users of kit cannot change.
warnings.filterwarnings("ignore", r".torch\.jit\.\w+. is deprecated", FutureWarning)

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
