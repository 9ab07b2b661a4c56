"""The engines behind the indexes, each with the same few things a test does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from amer.corpus.store import DocumentStore
from amer.search.index import ExactIndex, FaissIndex, Index
from amer.search.index.milvus.index import MilvusIndex
from tests.milvus_server import MilvusServer


class Engine(Protocol):
    refuses: tuple[str, ...]  # names of filters in the battery that it cannot express

    def build(self, store: DocumentStore, name: str, approximate: bool = False) -> Index: ...

    def open(self, store: DocumentStore, name: str) -> Index: ...

    def restart(self) -> None: ...


class Torch:
    refuses = ()

    def build(self, store: DocumentStore, name: str, approximate: bool = False) -> Index:
        return ExactIndex(store)

    def open(self, store: DocumentStore, name: str) -> Index:
        return ExactIndex(store)

    def restart(self) -> None:
        """There is nothing to restart."""


class Faiss:
    refuses = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, store: DocumentStore, name: str, approximate: bool = False) -> Index:
        return FaissIndex.build(store, self.folder / name, "hnsw" if approximate else "flat", show_progress_bar=False)

    def open(self, store: DocumentStore, name: str) -> Index:
        return FaissIndex.open(store, self.folder / name)

    def restart(self) -> None:
        """Every opening reads the files anew."""


class Milvus:
    refuses = ()

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def build(self, store: DocumentStore, name: str, approximate: bool = False) -> Index:
        kind = "HNSW" if approximate else "FLAT"
        return MilvusIndex.build(store, self.uri, name, kind, show_progress_bar=False)

    def open(self, store: DocumentStore, name: str) -> Index:
        return MilvusIndex.open(store, self.uri, name)


class Lite(Milvus):
    def restart(self) -> None:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(self.uri)


class Server(Milvus):
    def __init__(self, server: MilvusServer) -> None:
        super().__init__(server.uri)
        self.server = server

    def restart(self) -> None:
        self.server.kill()
        self.server.start()


class Qdrant:
    """In a folder, by this process; it searches exactly."""

    refuses = ("between the largest numbers", "order of strings")

    def __init__(self, folder: Path) -> None:
        from amer.search.index.qdrant import QdrantIndex

        self.folder, self.index = folder, QdrantIndex
        self.restart()

    def build(self, store: DocumentStore, name: str, approximate: bool = False) -> Index:
        if approximate:
            pytest.skip("Qdrant in a folder searches exactly")
        return self.index.build(store, self.client, name, show_progress_bar=False)

    def open(self, store: DocumentStore, name: str) -> Index:
        return self.index.open(store, self.client, name)

    def restart(self) -> None:
        from qdrant_client import QdrantClient

        if hasattr(self, "client"):
            self.client.close()
        self.client = QdrantClient(path=str(self.folder))
