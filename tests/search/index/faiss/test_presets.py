"""A preset fits the corpus and the memory, or says what would."""

from __future__ import annotations

import pytest

from amer.search.index.faiss.presets import available_memory, factory_of

GIB = 2**30


@pytest.mark.parametrize(
    "index, count, dim, memory, factory",
    [
        ("auto", 117_659, 384, GIB, "Flat"),
        ("auto", 1_000_000, 384, 2 * GIB, "Flat"),
        ("auto", 1_000_000, 384, GIB, "IVF4096,PQ192x4fs"),
        ("auto", 1_000_001, 384, 64 * GIB, "IVF4096,PQ192x4fs"),
        ("auto", 25_000_000, 1536, 24 * GIB, "IVF65536_HNSW32,PQ768x4fs"),
        ("auto", 25_000_000, 1536, 7 * GIB, "IVF65536_HNSW32,PQ512x4fs"),
        ("auto", 25_000_000, 1536, 3 * GIB, "IVF65536_HNSW32,PQ192x4fs"),
        ("ivfpq", 500_000, 384, GIB, "IVF2048,PQ192x4fs"),
        ("ivfpq", 500_000, 9, GIB, "IVF2048,PQ3x4fs"),
        ("ivfpq", 10, 8, GIB, "IVF1,PQ4x4fs"),
        ("flat", 3_000_000, 384, 5 * GIB, "Flat"),
        ("hnsw", 500_000, 384, GIB, "HNSW32"),
        ("IVF7,SQ8", 500_000, 384, 0, "IVF7,SQ8"),
    ],
)
def test_the_index_follows_from_documents_dim_and_memory(index, count, dim, memory, factory):
    assert factory_of(index, count, dim, memory) == factory


@pytest.mark.parametrize(
    "index, needed", [("flat", "143 GiB"), ("hnsw", "149 GiB"), ("auto", r"2.81 GiB \(.*PQ192x4fs\),")]
)
def test_what_does_not_fit_says_what_would(index, needed):
    with pytest.raises(ValueError, match=f"needs {needed}.* the memory is 1 GiB"):
        factory_of(index, 25_000_000, 1536, GIB)


def test_a_prime_dim_has_no_product_quantizer():
    with pytest.raises(ValueError, match=r'vectors of 11 values.* choose "flat"'):
        factory_of("ivfpq", 500_000, 11, GIB)
    assert factory_of("auto", 500_000, 11, GIB) == "Flat"


def test_the_memory_available_is_the_default():
    most = available_memory() // 4
    assert factory_of("flat", most // 2, 1) == "Flat"
    with pytest.raises(ValueError, match="needs"):
        factory_of("flat", 100 * most, 1)
