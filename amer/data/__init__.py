"""Datasets and corpora: their formats, and one builder for each.

`__init__.pyi` lists the public names. Each is imported on first use, because some need PyTorch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
