"""Encode a corpus on a Ray cluster. The shards are the same as those of `encode_corpus`.

All nodes must see the corpus and the store's directory under the same paths, so use a shared file system.
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
    """Run `encode_corpus` on all nodes of a Ray cluster. Each of the two can resume an unfinished run of the other.

    Every actor loads one encoder, prepares the corpus once and then encodes one shard after another. If a node is
    lost, another node encodes its shard. This process shows the progress and finishes the store.

    Args:
        documents: Path of the corpus, as for `open_documents`. A folder of Arrow parts needs no memory on the nodes.
        make_encoder: Loads the encoder in an actor, such as a `functools.partial` of `DocumentEncoder.from_identity`.
        path: Directory of the store, as for `encode_corpus`.
        batch_size: Number of documents to embed at a time.
        shard_size: Documents per file.
        dtype: Precision on disk, float16 or float32.
        show_progress_bar: Show how many documents are done.
        address: Address of a running cluster, such as `auto` or `10.0.0.1:6379`. Default: start Ray on this machine
            only, not reachable from others, and stop it afterwards.
        num_actors: Number of encoders. Default: one per GPU of the cluster, or one per CPU core if it has no GPU.

    Raises:
        ImportError: Ray is not installed.
        OSError: As `encode_corpus`, or a node does not see the corpus or the directory. The message names the node.
        ValueError, FileExistsError: As `encode_corpus`.
    """
    documents, path = Path(documents).absolute(), Path(path).absolute()
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, got {shard_size}")
    corpus = open_documents(documents)
    path.mkdir(parents=True, exist_ok=True)
    # Used only for file names. This process has no encoder, so it does not know the size of an embedding.
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
        numbers = [*sizes] or [0]  # if no shard is missing, an actor still gets one, to check that the directory fits
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
    """An encoder in a Ray actor. It receives shard numbers; see `encode_corpus_with_ray`."""

    def __init__(self, documents: Path, make_encoder: Callable[[], Encoder], options: dict[str, Any]) -> None:
        """Load the encoder and prepare the corpus."""
        self.encoding = CorpusEncoding.prepare(open_documents(documents), make_encoder(), **options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Make sure that the shards `item` exist, and return their numbers."""
        for shard in batch["item"].tolist():
            with self.encoding.share_directory():
                self.encoding.encode([shard])
                # Another process has the lock. It may be a leftover of a lost node and end without a result: retry.
                while not self.encoding.shards.file(shard).is_file():
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    self.encoding.encode([shard])
        return batch


@contextmanager
def _cluster(address: str | None) -> Iterator[ModuleType]:
    """Connect to Ray, and yield the module `ray`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address}
    if address is None:
        # Ray reads this variable at import. Without it, Ray replaces 127.0.0.1 and listens on all interfaces.
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
    """Raise OSError if some nodes do not see the paths. The message names these nodes."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    exists = ray.remote(num_cpus=0)(os.path.exists)  # a function of AMER would first import AMER on the node
    nodes = [node for node in ray.nodes() if node["Alive"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    for path in paths:
        seen = ray.get([exists.options(scheduling_strategy=on_node).remote(path) for on_node in there])
        blind = [node["NodeManagerHostname"] for node, sees in zip(nodes, seen, strict=True) if not sees]
        if blind:
            raise OSError(f"{', '.join(blind)} do not see {path}: put it on a file system that all nodes share")


def _finish(path: Path, documents: pa.Table) -> DocumentStore:
    """Finish the store after the actors have written its shards. A concurrent run may finish it too."""
    if not (path / STORE_FILE).is_file():
        info = {**read_manifest(path / RUN_FILE, dict), "documents_sha256": fingerprint(documents)}
        if missing := embedding_shards(path, info).missing():
            raise OSError(
                f"{len(missing)} shards written on other nodes are not in {path}: put it on a file system that all "
                "nodes share"
            )
        with share_directory(path, STORE_FILE, info):
            while not finish_store(path, documents, info):
                time.sleep(SECONDS_BETWEEN_LOOKS)
    return DocumentStore.open(path)
