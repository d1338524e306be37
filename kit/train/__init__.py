"""Training a Learner: the head from features, all layers, precision, history, and the learning-rate finder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
