"""Bundles: a trained model as a folder of safetensors and JSON, which predicts without the script that made it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
