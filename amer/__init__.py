"""AMER: a retriever that turns a question into several query vectors.

The public names are listed in `__init__.pyi`. Each is imported when it is first used, so `import amer` costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
