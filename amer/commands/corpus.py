"""`amer corpus`: document stores, from vectors computed here or elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import typer

from amer.commands.opening import open_store
from amer.commands.options import TrustRemoteCode, WorkerDevice
from amer.commands.terminal import say

if TYPE_CHECKING:
    from amer.corpus import DocumentStore


class _Sizes(TypedDict):
    """Options that both ways of encoding share."""

    batch_size: int
    shard_size: int
    dtype: Literal["float16", "float32"]


app = typer.Typer(no_args_is_help=True, help="Make, export or verify a document store.")

Dtype = Annotated[Literal["float16", "float32"], typer.Option(help="Precision of the stored vectors.")]
Named = Annotated[str, typer.Argument(metavar="STORE", help="A folder or a name on the Hub.")]


@app.command()
def encode(
    documents: Annotated[str, typer.Option(help="The corpus: a folder of Arrow parts, or a .parquet or .jsonl file.")],
    encoder: Annotated[str, typer.Option(help="A sentence-transformers model: a name on the Hub or a folder.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the document store.")],
    revision: Annotated[str | None, typer.Option(help="The encoder's commit on the Hub.")] = None,
    document_prompt: Annotated[str, typer.Option(help="Text to put before every document.")] = "",
    query_prompt: Annotated[
        str | None,
        typer.Option(help="Text to put before every question. Default: the prompt of a known encoder, else none."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents per batch.")] = 256,
    shard_size: Annotated[int, typer.Option(min=1, help="Documents per file.")] = 8_192,
    dtype: Dtype = "float16",
    encoder_dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(
            help="Precision of the encoder's computation. `auto`: bfloat16 if the processor supports it natively."
        ),
    ] = "auto",
    device: WorkerDevice = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Address of a Ray cluster. `local` starts Ray on this machine."),
    ] = None,
    ray_actors: Annotated[
        int | None,
        typer.Option(min=1, help="Number of encoders in the Ray cluster. Default: one per GPU or CPU core."),
    ] = None,
) -> None:
    """Encode a corpus into a document store.

    Run it again after an interruption to resume. It runs in one process, or in several:

    \b
    accelerate launch --num_processes 8 -m amer corpus encode ...  (several GPUs)
    torchrun --nproc_per_node 4 -m amer corpus encode ...          (several processes on CPUs)
    amer corpus encode --ray ADDRESS ...                           (a Ray cluster)

    Any process finishes the work that another one began. Several machines need a shared file system.
    """
    if ray_actors is not None and ray is None:
        raise typer.BadParameter("--ray-actors needs --ray")
    identity = {"name": encoder, "revision": revision, "document_prompt": document_prompt}
    options: _Sizes = {"batch_size": batch_size, "shard_size": shard_size, "dtype": dtype}
    store: DocumentStore | None
    if ray is None:
        loading = {"trust_remote_code": trust_remote_code, "dtype": encoder_dtype}
        store = _encode_here(documents, identity, query_prompt, output, device, loading, options)
    else:
        from amer.corpus import DocumentEncoder
        from amer.corpus.ray_encoding import encode_corpus_with_ray

        complete = _with_query_prompt(identity, query_prompt, tell=True)
        make = partial(DocumentEncoder.from_identity, complete, device, trust_remote_code, encoder_dtype)
        address = None if ray == "local" else ray
        store = encode_corpus_with_ray(documents, make, output, address=address, num_actors=ray_actors, **options)
    say(_what_is_missing(output) if store is None else _summary(store))


def _encode_here(
    documents: str,
    identity: dict[str, Any],
    query_prompt: str | None,
    output: Path,
    device: str | None,
    loading: dict[str, Any],
    options: _Sizes,
) -> DocumentStore | None:
    """Encode this process's part of the corpus; the last process completes the store."""
    from amer.corpus import DocumentEncoder, encode_corpus, open_documents
    from amer.corpus.workers import this_worker

    with this_worker(device) as worker:
        identity = _with_query_prompt(identity, query_prompt, tell=worker.index == 0)
        return encode_corpus(
            open_documents(documents),
            DocumentEncoder.from_identity(identity, worker.device, **loading),
            output,
            show_progress_bar=worker.is_first_here,
            worker=worker.index,
            num_workers=worker.count,
            **options,
        )


def _with_query_prompt(identity: dict[str, Any], given: str | None, tell: bool) -> dict[str, Any]:
    """The encoder's identity with its query prompt; prints the prompt if the user gave none."""
    from amer.corpus.known_encoders import known_query_prompt

    if given is not None:
        return {**identity, "query_prompt": given}
    prompt = known_query_prompt(identity["name"])
    if tell:
        say(f"prompt before every question: {prompt!r} (change it with --query-prompt)")
    return {**identity, "query_prompt": prompt}


def _what_is_missing(path: Path) -> str:
    """Why a store is not finished yet."""
    from amer.corpus.store import embedding_shards
    from amer.files import read_manifest
    from amer.locks import RUN_FILE

    try:
        shards = embedding_shards(path, read_manifest(path / RUN_FILE, dict))
    except FileNotFoundError:
        return f"{path}: another process has just finished it"
    there = len(shards) - len(shards.missing())
    return (
        f"{path}: {there} of {len(shards)} shards are done. Other processes encode the rest, and the last one "
        "completes the store. If no other process is running, run this command again"
    )


@app.command("import")
def import_store(
    output: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the new store.")],
    encoder: Annotated[str, typer.Option(help="Name of the model that computed the vectors.")],
    vectors: Annotated[
        Path | None, typer.Option(help="A .npy file of (n, dim), or a FAISS index. Needs --documents.")
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(help="The corpus of --vectors: a folder of Arrow parts, or a .parquet or .jsonl file."),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(help="Documents with a column of vectors: a .parquet file, a saved dataset, or one on the Hub."),
    ] = None,
    embedding: Annotated[str, typer.Option(help="The column of vectors in --table.")] = "embedding",
    split: Annotated[str, typer.Option(help="Split to read, if --table has splits.")] = "train",
    revision: Annotated[str | None, typer.Option(help="The encoder's commit on the Hub.")] = None,
    document_prompt: Annotated[str, typer.Option(help="Text that was put before every document.")] = "",
    query_prompt: Annotated[str, typer.Option(help="Text to put before every question.")] = "",
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale every vector to length 1.")] = False,
    dtype: Dtype = "float16",
) -> None:
    """Make a store from vectors that were computed elsewhere."""
    from amer.corpus import open_documents
    from amer.corpus.importing import import_table, import_vectors

    identity = {
        "name": encoder, "revision": revision, "document_prompt": document_prompt, "query_prompt": query_prompt
    }  # fmt: skip
    if table is not None and vectors is None and documents is None:
        opened = _open_table(table, split)
        store = import_table(output, opened, identity, embedding, normalize=normalize, dtype=dtype)
    elif table is None and vectors is not None and documents is not None:
        store = import_vectors(output, open_documents(documents), vectors, identity, normalize, dtype)
    else:
        raise typer.BadParameter("give --vectors and --documents, or --table, which holds both")
    say(_summary(store))


def _open_table(name: str, split: str) -> Any:
    """The name of a parquet file unchanged, else a loaded dataset: from a folder, or from the Hub."""
    if Path(name).is_file():
        return name
    from amer.hub import load_datasets

    loaded = load_datasets(name)
    if not isinstance(loaded, dict):
        return loaded
    if split not in loaded:
        raise ValueError(f"{name} has no split {split!r}: choose --split from {', '.join(loaded)}")
    return loaded[split]


@app.command()
def export(
    store: Named,
    npy: Annotated[
        Path | None,
        typer.Option(help="File for the vectors; NumPy, torch and sentence-transformers can read it."),
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="File for documents, metadata and vectors; `datasets` can read it.")
    ] = None,
) -> None:
    """Write a store into one file: its vectors, or its documents with their vectors."""
    if (npy is None) == (parquet is None):
        raise typer.BadParameter("give --npy FILE or --parquet FILE")
    from amer.corpus.exporting import export_npy, export_parquet

    opened = open_store(store)
    if npy is not None:
        export_npy(opened, npy)
        say(f"{npy}: {len(opened):,} vectors of {opened.dim} values, {opened.dtype}")
    if parquet is not None:
        export_parquet(opened, parquet)
        say(f"{parquet}: {len(opened):,} documents with their vectors")


@app.command()
def verify(store: Named) -> None:
    """Check a whole store: checksums, vector lengths, ids."""
    opened = open_store(store)
    opened.verify()
    say(f"{opened.path}: all of its {len(opened):,} documents are intact")


def _summary(store: DocumentStore) -> str:
    return f"{store.path}: {len(store):,} documents, {store.dim} values each, {store.dtype}"
