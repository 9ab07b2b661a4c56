"""Which index fits a corpus: by name, by the number of documents and by the memory there is."""

from __future__ import annotations

MOST_FLAT = 1_000_000  # documents; beyond them comparing all takes too long
DOCUMENTS_OF_A_LIST = 240  # half of a typical list: numbers of lists are powers of two
MOST_LISTS = 2**18
FLAT_QUANTIZER_LISTS = 2**13  # of more lists a graph finds the nearest
CODES = (2, 3, 4, 5, 6, 7, 8)  # values of a vector that share four bits, the best codes first
NAMES = ("auto", "flat", "ivfpq", "hnsw")
LINKS = 4 * 2 * 32 + 16  # bytes of a document in the graph HNSW32, its level included


def factory_of(index: str, count: int, dim: int, memory: int | None = None) -> str:
    """The `faiss.index_factory` string of a preset; any other string is taken for one.

    Args:
        index: "flat" compares every document. "ivfpq" compares codes of some lists and re-scores candidates from the
            store. "hnsw" walks a graph. "auto" is flat up to a million documents that fit, "ivfpq" beyond.
        count: documents.
        dim: size of a vector.
        memory: bytes that the index may take; what the machine has available by default.

    Raises:
        ValueError: it does not fit; says what would.
    """
    if index not in NAMES:
        return index
    memory = available_memory() if memory is None else memory
    plans = _plans(index, count, dim)
    for factory, size in plans:
        if size <= memory:
            return factory
    if not plans:
        raise ValueError(
            f"no product quantizer divides vectors of {dim} values ({', '.join(map(str, CODES))} do not): choose "
            '"flat", "hnsw" or a factory string such as "IVF1024,SQ8"'
        )
    factory, size = min(plans, key=lambda plan: plan[1])
    raise ValueError(
        f"the index {index!r} of {count:,} documents of {dim} values needs {size / 2**30:.3g} GiB ({factory}), the "
        f'memory is {memory / 2**30:.3g} GiB: give more, choose "ivfpq", or search a cluster with MilvusIndex'
    )


def available_memory() -> int:
    """Bytes that this machine can give without swapping."""
    import psutil

    return psutil.virtual_memory().available


def _plans(index: str, count: int, dim: int) -> list[tuple[str, int]]:
    """Factory strings and their bytes, the one wanted most first."""
    flat = ("Flat", 4 * dim * count)
    if index == "flat":
        return [flat]
    if index == "hnsw":
        return [("HNSW32", (4 * dim + LINKS) * count)]
    coded = _coded(count, dim)
    return [flat, *coded] if index == "auto" and count <= MOST_FLAT else coded


def _coded(count: int, dim: int) -> list[tuple[str, int]]:
    """Lists of codes for fast scan, longer codes first."""
    lists = min(MOST_LISTS, 1 << max(0, (count // DOCUMENTS_OF_A_LIST).bit_length() - 1))
    name, centroid = (f"IVF{lists}", 4 * dim)
    if lists > FLAT_QUANTIZER_LISTS:
        name, centroid = f"{name}_HNSW32", centroid + LINKS
    codes = [dim // values for values in CODES if dim % values == 0]
    return [(f"{name},PQ{code}x4fs", (-(-code // 2) + 8) * count + centroid * lists) for code in codes]
