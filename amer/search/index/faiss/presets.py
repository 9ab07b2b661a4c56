"""Choose a FAISS index by preset name, number of documents and available memory."""

from __future__ import annotations

MOST_FLAT = 1_000_000  # documents; beyond this a comparison with all takes too long
DOCUMENTS_OF_A_LIST = 240  # half of a typical list, since the number of lists is a power of two
MOST_LISTS = 2**18
FLAT_QUANTIZER_LISTS = 2**13  # with more lists, a graph finds the nearest lists
CODES = (2, 3, 4, 5, 6, 7, 8)  # values of a vector per 4-bit code, the most accurate codes first
NAMES = ("auto", "flat", "ivfpq", "hnsw")
LINKS = 4 * 2 * 32 + 16  # bytes per document in the graph HNSW32, including its level


def factory_of(index: str, count: int, dim: int, memory: int | None = None) -> str:
    """Return the `faiss.index_factory` string of a preset. A string that is no preset is returned as it is.

    Args:
        index: "flat" compares every document. "ivfpq" compares the codes in some of the lists and re-scores candidates
            from the store. "hnsw" searches a graph. "auto" is "flat" for up to a million documents that fit into
            memory, else "ivfpq".
        count: Number of documents.
        dim: Dimension of a vector.
        memory: Bytes that the index may take. Default: the available memory of this machine.

    Raises:
        ValueError: The index does not fit into memory. The message says what to choose instead.
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
            f"no product quantizer fits vectors of {dim} values, which {', '.join(map(str, CODES))} do not divide: "
            'choose "flat", "hnsw" or a factory string such as "IVF1024,SQ8"'
        )
    factory, size = min(plans, key=lambda plan: plan[1])
    raise ValueError(
        f"the index {index!r} of {count:,} documents of {dim} values needs {size / 2**30:.3g} GiB ({factory}), the "
        f'memory is {memory / 2**30:.3g} GiB: give more memory, choose "ivfpq", or use a cluster with MilvusIndex'
    )


def available_memory() -> int:
    """Return how many bytes this machine can provide without swapping."""
    import psutil

    return psutil.virtual_memory().available


def _plans(index: str, count: int, dim: int) -> list[tuple[str, int]]:
    """Return factory strings and their sizes in bytes, the preferred one first."""
    flat = ("Flat", 4 * dim * count)
    if index == "flat":
        return [flat]
    if index == "hnsw":
        return [("HNSW32", (4 * dim + LINKS) * count)]
    coded = _coded(count, dim)
    return [flat, *coded] if index == "auto" and count <= MOST_FLAT else coded


def _coded(count: int, dim: int) -> list[tuple[str, int]]:
    """Return IVF indexes with fast-scan codes, longer codes first."""
    lists = min(MOST_LISTS, 1 << max(0, (count // DOCUMENTS_OF_A_LIST).bit_length() - 1))
    name, centroid = (f"IVF{lists}", 4 * dim)
    if lists > FLAT_QUANTIZER_LISTS:
        name, centroid = f"{name}_HNSW32", centroid + LINKS
    codes = [dim // values for values in CODES if dim % values == 0]
    return [(f"{name},PQ{code}x4fs", (-(-code // 2) + 8) * count + centroid * lists) for code in codes]
