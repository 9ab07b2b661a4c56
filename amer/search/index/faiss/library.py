"""Calls to FAISS: files, search parameters and GPUs."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from amer.extras import import_extra
from amer.files import atomic_write

EF_CONSTRUCTION = 200
MOST_EF = 2**14
MOST_ON_GPU = 2048  # limit of FAISS for candidates per list and for `nprobe`


def import_faiss() -> Any:
    """Import FAISS. An ImportError says what to install."""
    return import_extra("faiss", "cpu", "FaissIndex")


def write_index(index: Any, file: Path) -> None:
    """Write an index atomically.

    Raises:
        OSError: For example, the disk is full.
    """
    faiss = import_faiss()
    with atomic_write(file) as temporary:
        try:
            faiss.write_index(index, str(temporary))
            faiss.read_index(str(temporary), faiss.IO_FLAG_MMAP_IFC)  # FAISS does not notice a failed last write
        except RuntimeError as error:
            raise OSError(f"{file} could not be written, is the disk full? ({reason_of(error)})") from error


def read_index(file: Path, mapped: bool = True) -> Any:
    """Open an index: memory-mapped, which is instant, or read into memory, where documents can be added.

    Raises:
        FileNotFoundError: The file does not exist.
        OSError: The file is truncated or not an index.
    """
    faiss = import_faiss()
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: restore it or build the index again")
    try:
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise OSError(f"{file} is damaged ({reason_of(error)}): delete it and build the index again") from error


def make_index(factory: str, dim: int) -> Any:
    """Create an empty inner-product index. Graphs get `EF_CONSTRUCTION`, more than FAISS' default.

    Raises:
        ValueError: FAISS does not know the index.
    """
    faiss = import_faiss()
    if wrong := re.search(r"[A-Za-z]0+(?![0-9])|(HNSW|NSG)1(?![0-9])", factory):
        # FAISS accepts these numbers, but then crashes or never returns.
        raise ValueError(
            f"FAISS cannot build {factory!r}: the number in {wrong[0]} is too small, give at least 1, or 2 for a graph"
        )
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except MemoryError as error:
        raise ValueError(f"{factory!r} for {dim} values does not fit into memory: choose smaller numbers") from error
    except ValueError as error:
        raise ValueError(f"FAISS cannot build {factory!r} ({error}): correct the factory string") from error
    except RuntimeError as error:
        raise ValueError(
            f"FAISS cannot build {factory!r} for {dim} values ({reason_of(error)}): correct the factory string"
        ) from error
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def holds_vectors(factory: str) -> bool:
    """Return whether an index stores whole vectors, so that its scores are exact inner products."""
    return re.fullmatch(r"(IVF\w+,)?Flat|(HNSW|NSG)\d+(,Flat)?", factory) is not None


def width_name(index: Any) -> str | None:
    """Return the name of the parameter that sets how much of the index a search visits, or None."""
    faiss = import_faiss()
    if faiss.try_extract_index_ivf(index) is not None:
        return "nprobe"
    return "efSearch" if isinstance(index, faiss.IndexHNSW) else None


def widths(index: Any, k: int) -> tuple[int, int] | None:
    """Return the least width that lists k documents and the greatest that is worth trying, or None."""
    name, ivf = width_name(index), import_faiss().try_extract_index_ivf(index)
    if name is None:
        return None
    return (1, ivf.nlist) if name == "nprobe" else (k, max(k, min(index.ntotal, MOST_EF)))


def visited(index: Any, width: int | None) -> float:
    """Estimate how many documents a search with this width compares."""
    faiss = import_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        return index.ntotal * width / ivf.nlist
    return width * index.hnsw.nb_neighbors(0) if isinstance(index, faiss.IndexHNSW) else index.ntotal


def set_width(index: Any, width: int) -> None:
    """Set the width, also inside a nested index."""
    import_faiss().ParameterSpace().set_index_parameter(index, width_name(index), width)


def search_parameters(index: Any, width: int | None, allowed: np.ndarray | None = None) -> Any | None:
    """Return parameters for one search with another width, or only in the allowed rows. None if not IVF or HNSW.

    Some other indexes do not support this (`IndexPQFastScan`, `IndexNSG`, copies on GPUs). Those that compare every
    document are no faster than exact search in the allowed rows.

    Args:
        index: A FAISS index.
        width: Value of the parameter `width_name`. None if the index has none.
        allowed: `(n,)` bool. Default: all rows.
    """
    faiss = import_faiss()
    if width is None:
        return None
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(faiss.downcast_index(index.index), width, allowed)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=width)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=width)
    return None


class GpuCopy:
    """An index on GPUs. It searches for one thread at a time and lists a limited number of candidates."""

    def __init__(self, index: Any) -> None:
        """Wrap a FAISS index that is on the GPUs."""
        self._index = index
        self._lock = Lock()

    def search(self, queries: np.ndarray, k: int, params: None = None) -> tuple[np.ndarray, np.ndarray]:
        """Search as a FAISS index does, without parameters.

        Raises:
            ValueError: k is too large.
        """
        if k > MOST_ON_GPU:
            raise ValueError(
                f"FAISS lists at most {MOST_ON_GPU:,} candidates on GPUs, this search needs {k:,} (k times the "
                'candidates re-scored per document): use a smaller k, or open the index with device="cpu"'
            )
        with self._lock:
            return self._index.search(queries, k)


def to_gpus(index: Any) -> GpuCopy:
    """Copy a flat or IVF index (but no fast-scan index) in float16 to all GPUs, in equal parts.

    Follows the documentation of faiss-gpu. Tested only with a mock: no machine of the project has faiss-gpu.

    Raises:
        ValueError: FAISS finds no GPU, does not support the index on GPUs, or cannot visit as many lists there.
    """
    faiss = import_faiss()
    if not (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
        raise ValueError(
            "FAISS finds no GPU: install faiss-gpu INSTEAD of faiss-cpu (pip uninstall faiss-cpu; pip install "
            'faiss-gpu) and a GPU driver, or pass device="cpu"'
        )
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None and ivf.nprobe > MOST_ON_GPU:
        raise ValueError(
            f"the index visits {ivf.nprobe:,} lists, on GPUs FAISS visits at most {MOST_ON_GPU:,}: tune it for a "
            'lower recall (FaissIndex.build), or use device="cpu"'
        )
    options = faiss.GpuMultipleClonerOptions()
    options.shard = options.useFloat16 = options.common_ivf_quantizer = True
    try:
        return GpuCopy(faiss.index_cpu_to_all_gpus(index, options))
    except RuntimeError as error:
        raise ValueError(
            f'FAISS does not support {type(index).__name__} on GPUs ({reason_of(error)}): use device="cpu"'
        ) from error


def reason_of(error: RuntimeError) -> str:
    """Return FAISS' error message without its source location."""
    return str(error).rsplit("Error: ", 1)[-1].strip()
