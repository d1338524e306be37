"""From DataLoaders to a fastai Learner: which network a name means, where its weights come from, how it is built."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
