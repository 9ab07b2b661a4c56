"""Encode a corpus on the machines of a Ray cluster, with the same shards as `encode_corpus` writes.

All nodes must see the corpus and the store's directory, under the same paths: a shared file system.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from amer.corpus.documents import open_documents
from amer.corpus.encoding import CorpusEncoding, Encoder, finish_store
from amer.corpus.shards import Shards
from amer.corpus.store import STORE_FILE, DocumentStore, embedding_shards
from amer.corpus.table import checked_documents, fingerprint
from amer.extras import import_extra
from amer.files import read_manifest
from amer.locks import RUN_FILE, share_directory

SECONDS_BETWEEN_LOOKS = 1.0


def encode_corpus_with_ray(
    documents: str | os.PathLike[str],
    make_encoder: Callable[[], Encoder],
    path: str | os.PathLike[str],
    batch_size: int = 256,
    shard_size: int = 8_192,
    dtype: str = "float16",
    show_progress_bar: bool = True,
    address: str | None = None,
    num_actors: int | None = None,
) -> DocumentStore:
    """Do what `encode_corpus` does on all nodes of a Ray cluster; what either began, the other can bring to the end.

    Every actor loads one encoder, prepares once and takes shard after shard. What a lost node was at is done again
    elsewhere. This process shows the progress and finishes the store.

    Args:
        documents: the corpus, a path for `open_documents`; a folder of Arrow parts takes no memory on the nodes.
        make_encoder: loads the encoder in an actor, such as a `functools.partial` of `DocumentEncoder.from_identity`.
        path: the store's directory, as for `encode_corpus`.
        batch_size: documents embedded at a time.
        shard_size: documents per file.
        dtype: float16 or float32, on disk.
        show_progress_bar: show how many documents are done.
        address: of a running cluster, such as `auto` or `10.0.0.1:6379`; by default Ray is started on this machine
            alone, reachable from nowhere else, and ended afterwards.
        num_actors: how many encoders; by default one a GPU of the cluster, or one a CPU core where it has no GPU.

    Raises:
        ImportError: Ray is not installed.
        OSError: a node does not see the corpus or the directory; names the node. Also as `encode_corpus`.
        ValueError, FileExistsError: as `encode_corpus`.
    """
    documents, path = Path(documents).absolute(), Path(path).absolute()
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    corpus = open_documents(documents)
    path.mkdir(parents=True, exist_ok=True)
    # Only the names of files are asked of it: the size of an embedding is known where the encoder is.
    shards = Shards(path, "embeddings", corpus.num_rows, shard_size, (), dtype)
    sizes = {index: len(range(corpus.num_rows)[shards.rows(index)]) for index in shards.missing()}
    options = {"path": path, "batch_size": batch_size, "shard_size": shard_size, "dtype": dtype}
    progress = tqdm(
        total=corpus.num_rows,
        initial=corpus.num_rows - sum(sizes.values()),
        desc="Encoding",
        unit="document",
        smoothing=0,
        disable=not show_progress_bar,
    )
    with _cluster(address) as ray, progress:
        _check_nodes(ray, documents, path)
        gpus, cpus = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        numbers = [*sizes] or [0]  # with all there, one is still asked of an actor, which checks whose they are
        done = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            ShardActor,
            batch_size=1,
            fn_constructor_args=(documents, make_encoder, options),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            compute=ray.data.ActorPoolStrategy(size=num_actors or gpus or cpus),
        )
        for row in done.iter_rows():
            progress.update(sizes.get(row["item"], 0))
    return _finish(path, checked_documents(corpus, check_repeats=False))


class ShardActor:
    """An encoder in a Ray actor, which takes numbers of shards; see `encode_corpus_with_ray`."""

    def __init__(self, documents: Path, make_encoder: Callable[[], Encoder], options: dict[str, Any]) -> None:
        """Load the encoder and prepare the corpus."""
        self.encoding = CorpusEncoding.prepare(open_documents(documents), make_encoder(), **options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See that the shards `item` are there, and give their numbers back."""
        for shard in batch["item"].tolist():
            with self.encoding.share_directory():
                self.encoding.encode([shard])
                # A process that is at it may be what is left of a lost node, and end without a result.
                while not self.encoding.shards.file(shard).is_file():
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    self.encoding.encode([shard])
        return batch


@contextmanager
def _cluster(address: str | None) -> Iterator[ModuleType]:
    """The module `ray`, connected."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address}
    if address is None:
        # Without the first, which Ray reads when it is imported, 127.0.0.1 is replaced and all interfaces listened on.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        options = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
    ray = import_extra("ray", "ray", "encoding on a Ray cluster")
    import_extra("ray.data", "ray", "encoding on a Ray cluster")
    ray.init(**options, logging_level="warning", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_nodes(ray: ModuleType, *paths: Path) -> None:
    """OSError naming the nodes that do not see the paths."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    exists = ray.remote(num_cpus=0)(os.path.exists)  # a task of ours would first import all of AMER there
    nodes = [node for node in ray.nodes() if node["Alive"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    for path in paths:
        seen = ray.get([exists.options(scheduling_strategy=on_node).remote(path) for on_node in there])
        blind = [node["NodeManagerHostname"] for node, sees in zip(nodes, seen, strict=True) if not sees]
        if blind:
            raise OSError(f"{', '.join(blind)} do not see {path}: put it on a file system that all nodes share")


def _finish(path: Path, documents: pa.Table) -> DocumentStore:
    """Finish the store whose shards the actors have written; a run beside this one may do so too."""
    if not (path / STORE_FILE).is_file():
        info = {**read_manifest(path / RUN_FILE, dict), "documents_sha256": fingerprint(documents)}
        if missing := embedding_shards(path, info).missing():
            raise OSError(f"{len(missing)} shards written on other nodes are not in {path}: share it among them")
        with share_directory(path, STORE_FILE, info):
            while not finish_store(path, documents, info):
                time.sleep(SECONDS_BETWEEN_LOOKS)
    return DocumentStore.open(path)
