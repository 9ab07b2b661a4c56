"""Default parameters for building and searching a Milvus index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Milvus Lite accepts any index type. It searches types that it does not know by brute force.
LITE_TYPES = ("FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8")


def default_index_params(index_type: str, count: int) -> dict[str, Any]:
    """Return a graph of degree 32 for HNSW, `4 sqrt(count)` lists for IVF, the server's defaults for other types."""
    if index_type.startswith("HNSW"):
        return {"M": 32, "efConstruction": 200}
    if index_type.startswith("IVF"):
        return {"nlist": min(math.isqrt(16 * count), 65_536)}
    return {}


def default_search_params(index_type: str, index_params: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Return 2k graph candidates (at least 200) for HNSW, a quarter of the lists for IVF. Measure your recall."""
    if index_type.startswith("HNSW"):
        return {"ef": min(max(200, 2 * k), 32_768)}
    if index_type.startswith("IVF"):
        return {"nprobe": max(1, int(index_params["nlist"]) // 4)}
    if index_type == "DISKANN":
        return {"search_list": max(200, 2 * k)}
    return {}


def check_type(index_type: str, uri: str) -> None:
    """Raise ValueError for a type that Milvus Lite cannot build. A server checks the type itself."""
    if "://" not in uri and index_type not in LITE_TYPES:
        raise ValueError(
            f"Milvus Lite builds {', '.join(LITE_TYPES)}, got {index_type!r}: use a server for other types"
        )
