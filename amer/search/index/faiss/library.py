"""What AMER asks of FAISS itself: its files, its search parameters, its GPUs."""

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
MOST_ON_GPU = 2048  # candidates of a list, and `nprobe`


def import_faiss() -> Any:
    """The module; ImportError says what to install."""
    return import_extra("faiss", "cpu", "FaissIndex")


def write_index(index: Any, file: Path) -> None:
    """Write an index, whole or not at all.

    Raises:
        OSError: the disk is full, for example.
    """
    faiss = import_faiss()
    with atomic_write(file) as temporary:
        try:
            faiss.write_index(index, str(temporary))
            faiss.read_index(str(temporary), faiss.IO_FLAG_MMAP_IFC)  # FAISS does not notice that its last bytes fail
        except RuntimeError as error:
            raise OSError(f"{file} could not be written, is the disk full? ({reason_of(error)})") from error


def read_index(file: Path, mapped: bool = True) -> Any:
    """Read an index: mapped, at once and holding nothing, or into memory, where it can grow.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is truncated or no index.
    """
    faiss = import_faiss()
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: restore it or build the index again")
    try:
        return faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise OSError(f"{file} is damaged ({reason_of(error)}): delete it and build the index again") from error


def make_index(factory: str, dim: int) -> Any:
    """An empty inner-product index; graphs are built with care (`EF_CONSTRUCTION`).

    Raises:
        ValueError: FAISS knows no such index.
    """
    faiss = import_faiss()
    if wrong := re.search(r"[A-Za-z]0+(?![0-9])|(HNSW|NSG)1(?![0-9])", factory):
        # FAISS takes them, and ends the process later, or never ends itself.
        raise ValueError(f"FAISS builds no {factory!r}: {wrong[0]} is too few, give at least 1, to a graph at least 2")
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except MemoryError as error:
        raise ValueError(f"{factory!r} of {dim} values does not fit into memory: choose smaller numbers") from error
    except ValueError as error:
        raise ValueError(f"FAISS builds no {factory!r} ({error}): correct it") from error
    except RuntimeError as error:
        raise ValueError(f"FAISS builds no {factory!r} of {dim} values ({reason_of(error)}): correct it") from error
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def holds_vectors(factory: str) -> bool:
    """Whether an index compares the vectors themselves, so that its scores are the inner products."""
    return re.fullmatch(r"(IVF\w+,)?Flat|(HNSW|NSG)\d+(,Flat)?", factory) is not None


def width_name(index: Any) -> str | None:
    """The parameter that says how much of the index a search visits; None if there is none."""
    faiss = import_faiss()
    if faiss.try_extract_index_ivf(index) is not None:
        return "nprobe"
    return "efSearch" if isinstance(index, faiss.IndexHNSW) else None


def widths(index: Any, k: int) -> tuple[int, int] | None:
    """The least value of that parameter that lists k, and the greatest that is worth a try."""
    name, ivf = width_name(index), import_faiss().try_extract_index_ivf(index)
    if name is None:
        return None
    return (1, ivf.nlist) if name == "nprobe" else (k, max(k, min(index.ntotal, MOST_EF)))


def visited(index: Any, width: int | None) -> float:
    """About how many documents a search of that width compares."""
    faiss = import_faiss()
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        return index.ntotal * width / ivf.nlist
    return width * index.hnsw.nb_neighbors(0) if isinstance(index, faiss.IndexHNSW) else index.ntotal


def set_width(index: Any, width: int) -> None:
    """Set the parameter, however deep in the index it is."""
    import_faiss().ParameterSpace().set_index_parameter(index, width_name(index), width)


def search_parameters(index: Any, width: int | None, allowed: np.ndarray | None = None) -> Any | None:
    """For one search of another width or of the allowed rows only; None for indexes other than IVF and HNSW.

    Not all others can (`IndexPQFastScan`, `IndexNSG`, copies on GPUs), and those that compare every document are no
    faster than exact search of the allowed ones.

    Args:
        index: of FAISS.
        width: as `width_name` says; None where there is none.
        allowed: `(n,)` bool; all by default.
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
    """An index on GPUs, which search for one thread at a time and list few candidates."""

    def __init__(self, index: Any) -> None:
        """Take an index of FAISS that is there."""
        self._index = index
        self._lock = Lock()

    def search(self, queries: np.ndarray, k: int, params: None = None) -> tuple[np.ndarray, np.ndarray]:
        """As an index of FAISS, without parameters.

        Raises:
            ValueError: k is too great.
        """
        if k > MOST_ON_GPU:
            raise ValueError(
                f"FAISS lists at most {MOST_ON_GPU:,} candidates on GPUs, this search needs {k:,} (k, times the "
                'candidates that are re-scored for each): ask for fewer, or open the index with device="cpu"'
            )
        with self._lock:
            return self._index.search(queries, k)


def to_gpus(index: Any) -> GpuCopy:
    """A copy in float16, in equal parts on all GPUs; of flat and IVF indexes other than fast-scan ones.

    Written after the documentation of faiss-gpu and tested with a stand-in only: no machine of the project has it.

    Raises:
        ValueError: FAISS sees no GPU, has no such index there, or visits fewer lists there.
    """
    faiss = import_faiss()
    if not (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
        raise ValueError(
            "FAISS sees no GPU: it needs faiss-gpu INSTEAD of faiss-cpu (pip uninstall faiss-cpu; pip install "
            'faiss-gpu) and a driver; or pass device="cpu"'
        )
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None and ivf.nprobe > MOST_ON_GPU:
        raise ValueError(
            f"the index visits {ivf.nprobe:,} lists, on GPUs FAISS visits at most {MOST_ON_GPU:,}: tune it for less "
            'recall (FaissIndex.build), or use device="cpu"'
        )
    options = faiss.GpuMultipleClonerOptions()
    options.shard = options.useFloat16 = options.common_ivf_quantizer = True
    try:
        return GpuCopy(faiss.index_cpu_to_all_gpus(index, options))
    except RuntimeError as error:
        raise ValueError(
            f'FAISS has no {type(index).__name__} on GPUs ({reason_of(error)}): use device="cpu"'
        ) from error


def reason_of(error: RuntimeError) -> str:
    """What FAISS says, without where in its source it says so."""
    return str(error).rsplit("Error: ", 1)[-1].strip()
