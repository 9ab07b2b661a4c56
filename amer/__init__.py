"""AMER: a retriever that turns a question into several query vectors.

`__init__.pyi` lists the public names. Each is imported on first use, so `import amer` is quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
