"""Export a document store to files for other tools: NumPy, `datasets`, sentence-transformers.

For FAISS, `FaissIndex.build(store, folder, "flat")` writes an index that holds every vector.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from amer.corpus.importing import EMBEDDING
from amer.corpus.store import DOCUMENTS_FILE, DocumentStore
from amer.files import atomic_write, parquet_batches, parquet_metadata, remove_leftovers

BLOCK = 16_384  # vectors held at a time


def export_npy(store: DocumentStore, file: str | os.PathLike[str], show_progress_bar: bool = True) -> None:
    """Write all vectors into one `.npy` file, `(n, dim)` in the store's order and precision, atomically.

    Read it with `numpy.load(file, mmap_mode="r")`. The array has the form that `SentenceTransformer.encode` returns.
    """
    header = {"descr": np.dtype(store.dtype).str, "fortran_order": False, "shape": (len(store), store.dim)}
    remove_leftovers(Path(file).parent, Path(file).name)
    with atomic_write(file) as temporary, open(temporary, "wb") as out:
        # No memory map: on a full disk, a write to it kills the process without a message.
        np.lib.format.write_array_header_1_0(out, header)
        with tqdm(total=len(store), desc="Writing", unit="vector", disable=not show_progress_bar) as progress:
            for _, block in store.blocks(BLOCK):
                out.write(block.data)
                progress.update(len(block))


def export_parquet(store: DocumentStore, file: str | os.PathLike[str], show_progress_bar: bool = True) -> None:
    """Write documents, metadata and vectors (column `embedding`) into one Parquet file, atomically.

    Read it with `datasets.Dataset.from_parquet(file)`. `import_table` makes the same store from it.
    """
    documents = store.path / DOCUMENTS_FILE
    vectors = pa.list_(pa.from_numpy_dtype(store.dtype), store.dim)
    schema = (
        parquet_metadata(documents).schema.to_arrow_schema().remove_metadata().append(pa.field(EMBEDDING, vectors))
    )
    remove_leftovers(Path(file).parent, Path(file).name)
    with atomic_write(file) as temporary, pq.ParquetWriter(temporary, schema) as out:
        with tqdm(total=len(store), desc="Writing", unit="document", disable=not show_progress_bar) as progress:
            start = 0
            for batch in parquet_batches(documents, size=BLOCK):
                rows = np.arange(start, start + len(batch))
                values = pa.array(store.vectors(rows).astype(store.dtype).reshape(-1))
                embeddings = pa.FixedSizeListArray.from_arrays(values, store.dim)
                out.write_batch(pa.record_batch([*batch.columns, embeddings], schema=schema))
                start += len(batch)
                progress.update(len(batch))
