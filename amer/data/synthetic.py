"""The paper's synthetic study: vectors that five fixed transformations map to five targets (paper §5.1, A.2)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import gelu

import amer
from amer.corpus.store import write_store
from amer.data.dataset import RetrievalDataset, save_dataset_dir
from amer.data.distances import RANDOM_QUERIES, SAME_QUERY, compare_with_random_queries
from amer.files import atomic_directory

Distribution = Literal["gaussian", "high_variance", "correlated", "uniform", "laplace"]
Transformation = Literal["linear", "mlp"]
Setting = Literal["single", "multi", "ood"]

DISTRIBUTIONS: tuple[Distribution, ...] = get_args(Distribution)
SETTINGS: dict[Setting, tuple[tuple[Distribution, ...], tuple[Distribution, ...]]] = {
    "single": (DISTRIBUTIONS[:1], DISTRIBUTIONS[:1]),
    "multi": (DISTRIBUTIONS, DISTRIBUTIONS),
    "ood": (DISTRIBUTIONS[:4], DISTRIBUTIONS[4:]),
}
"""Input distributions of training and of test (paper §5.1), each mixed evenly."""

NUM_TARGETS = 5
VALIDATION_SHARE = 0.1
BLOCK = 2_048
REPORT_QUERIES = 1_000


def random_rotation(dim: int, rng: np.random.Generator) -> np.ndarray:
    """A rotation `(dim, dim)` float64, uniform (Haar) over SO(dim): determinant +1."""
    q, r = np.linalg.qr(rng.standard_normal((dim, dim)))
    # QR leaves the signs of R's diagonal open; making them positive makes Q uniform (Mezzadri 2007).
    q *= np.sign(np.diag(r))
    if np.linalg.slogdet(q)[0] < 0:
        q[:, 0] *= -1
    return q


def orthogonal_rotations(dim: int, rng: np.random.Generator) -> np.ndarray:
    """Three rotations, each pair orthogonal in the Frobenius inner product (M_a, M_b, M_c of paper A.2).

    P and Q are uniform rotations. C is the cyclic shift of the coordinates, with one sign flipped if `dim` is even, so
    that det C = +1. The result is `P Q`, `P C Q` and `P C^2 Q`. Their inner products are the traces of C, C and C^2.
    For `dim >= 3`, a shift by one or two places moves every coordinate, so these traces are zero. Each of the three
    by itself is uniform over the rotations.

    Args:
        dim: At least 3 (in the plane only two rotations can be orthogonal to each other).

    Returns:
        `(3, dim, dim)` float64.
    """
    if dim < 3:
        raise ValueError(f"dim is {dim}: three mutually orthogonal rotations need dim >= 3")
    left, right = random_rotation(dim, rng), random_rotation(dim, rng)
    once = _signed_shift(right)
    return left @ np.stack([right, once, _signed_shift(once)])


def _signed_shift(matrix: np.ndarray) -> np.ndarray:
    """C @ matrix: the rows moved down by one, the wrapped row negated for an even number of rows (det C = +1)."""
    shifted = np.roll(matrix, 1, axis=0)
    if len(matrix) % 2 == 0:
        shifted[0] *= -1
    return shifted


def linear_weights(dim: int, rng: np.random.Generator) -> np.ndarray:
    """Draw T_1 = I, T_2 = -T_4 = M_a, T_3 = -T_5 = M_b with rotations M_a and M_b: `(5, dim, dim)` (paper A.2)."""
    first, second = random_rotation(dim, rng), random_rotation(dim, rng)
    return np.stack([np.eye(dim), first, second, -first, -second])


def mlp_weights(dim: int, rng: np.random.Generator) -> np.ndarray:
    """Draw orthogonal rotations M_a, M_b, M_c, with M_d = -M_b and M_e = -M_c: `(5, dim, dim)` (paper A.2)."""
    first, second, third = orthogonal_rotations(dim, rng)
    return np.stack([first, second, third, -second, -third])


def apply_linear(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Compute the targets `T_i x`: weights `(5, dim, dim)`, inputs `(queries, dim)` -> `(queries, 5, dim)` float32."""
    matrices, x = _tensors(weights, inputs)
    return torch.stack([x @ matrix.T for matrix in matrices], dim=1).numpy()


def apply_mlp(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Compute the targets `M_i GeLU(M_i x)`, with exact GeLU and no bias; shapes as in `apply_linear`."""
    matrices, x = _tensors(weights, inputs)
    return torch.stack([gelu(x @ matrix.T) @ matrix.T for matrix in matrices], dim=1).numpy()


def _tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for array in arrays]


TRANSFORMATIONS: dict[
    Transformation,
    tuple[Callable[[int, np.random.Generator], np.ndarray], Callable[[np.ndarray, np.ndarray], np.ndarray]],
] = {"linear": (linear_weights, apply_linear), "mlp": (mlp_weights, apply_mlp)}


def sample_inputs(distribution: Distribution, count: int, factor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw input vectors from one distribution of paper A.2.

    Args:
        distribution: "gaussian" N(0, I); "high_variance" N(0, 4I); "correlated" N(0, 0.5 A A^T + 0.1 I); "uniform"
            over [-2, 2]^dim; "laplace" Laplace(0, 1) plus Gaussian noise of variance 0.1.
        count: Number of vectors.
        factor: The matrix A `(dim, dim)` of "correlated"; every distribution takes `dim` from it.
        rng: Random number generator.

    Returns:
        `(count, dim)` float32.
    """
    dim = len(factor)
    noise = rng.standard_normal((count, dim))
    match distribution:
        case "gaussian":
            x = noise
        case "high_variance":
            x = 2 * noise
        case "correlated":
            x = np.sqrt(0.5) * rng.standard_normal((count, dim)) @ factor.T + np.sqrt(0.1) * noise
        case "uniform":
            x = rng.uniform(-2, 2, (count, dim))
        case "laplace":
            x = rng.laplace(0, 1, (count, dim)) + np.sqrt(0.1) * noise
        case _:
            raise ValueError(f"distribution is {distribution!r}: choose from {list(DISTRIBUTIONS)}")
    return x.astype(np.float32)


def random_factor(dim: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the matrix A of the correlated Gaussian: `(dim, dim)` entries from N(0, 1/dim).

    The paper does not give the scale of A. With this scale a coordinate has a variance of about 0.6 for every `dim`,
    similar to the other distributions. With N(0, 1) entries the variance would be 512 at dim 1024, and the inputs
    would be 20 times larger.
    """
    return rng.standard_normal((dim, dim)) / np.sqrt(dim)


def sample_mixture(
    distributions: tuple[Distribution, ...], count: int, factor: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw `count` inputs in random order, an equal share from each distribution: `(count, dim)` float32."""
    shares = [len(part) for part in np.array_split(np.arange(count), len(distributions))]
    parts = [sample_inputs(name, share, factor, rng) for name, share in zip(distributions, shares, strict=True)]
    return rng.permutation(np.concatenate(parts))


def distance_report(targets: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Compare the distances between targets of one query and of two random queries (paper A.4, Fig. 6).

    Args:
        targets: `(queries, m, dim)`, at least two queries and two targets; normalised to unit length, as in retrieval.
        seed: Seed of the random pairs of queries.

    Returns:
        Mean `same_query_euclidean`, `random_query_euclidean`, `same_query_cosine`, `random_query_cosine` distances.
        The cosine distance is 1 - cosine.
    """
    if targets.ndim != 3 or targets.shape[0] < 2 or targets.shape[1] < 2:
        raise ValueError(f"targets are {targets.shape}: the shape must be (queries >= 2, m >= 2, dim)")
    distances = compare_with_random_queries(_unit(targets.astype(np.float64)), seed)
    return {
        f"{name}_{kind}": means[pairs]
        for kind, means in distances.items()
        for name, pairs in (("same_query", SAME_QUERY), ("random_query", RANDOM_QUERIES))
    }


def build_synthetic(
    path: str | os.PathLike[str],
    transformation: Transformation = "linear",
    setting: Setting = "single",
    dim: int = 1024,
    num_train: int = 20_000,
    num_test: int = 1_000,
    corpus_size: int = 200_000,
    seed: int = 0,
) -> None:
    """Write one setting of the synthetic study: `path/dataset/` and `path/store/` (paper §5).

    A query vector is the input x as drawn. The store holds its five targets and random N(0, I) vectors up to
    `corpus_size`, all as unit vectors in float32. The transformations and A depend only on `seed` and `dim`, so the
    settings share them. A tenth of the training queries becomes the validation split (paper A.5).

    Args:
        path: A directory that does not exist yet, or is empty.
        transformation: "linear" or "mlp".
        setting: "single" (Gaussian), "multi" (all five distributions) or "ood" (train on four, test on the fifth).
        dim: Dimension of inputs and targets; at least 3.
        num_train: Training and validation queries together; at least 2.
        num_test: Test queries; at least 1.
        corpus_size: Documents in the store; at least five per query.
        seed: The same seed gives the same bytes.

    Raises:
        FileExistsError: `path` is not empty.
        ValueError: An argument is out of range.
    """
    _check_arguments(transformation, setting, dim, num_train, num_test, corpus_size)
    make_weights, apply = TRANSFORMATIONS[transformation]
    rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    weights, factor = make_weights(dim, rngs[0]), random_factor(dim, rngs[1])
    inputs = {
        name: sample_mixture(distributions, count, factor, rngs[2])
        for name, distributions, count in zip(("train", "test"), SETTINGS[setting], (num_train, num_test), strict=True)
    }
    report = distance_report(apply(weights, inputs["train"][:REPORT_QUERIES]), seed)
    # The inputs are in random order, so the last tenth is a random tenth.
    num_validation = max(1, round(VALIDATION_SHARE * num_train))
    train, validation = np.split(inputs["train"], [num_train - num_validation])
    inputs = {"train": train, "validation": validation, "test": inputs["test"]}
    num_random = corpus_size - NUM_TARGETS * (num_train + num_test)

    name = f"synthetic/{transformation}-{setting}-{dim}-{seed}"
    info = {
        "source": name,
        "licence": "none: generated numbers",
        "builder": f"amer.data.synthetic {amer.__version__}",
        "arguments": {
            "transformation": transformation, "setting": setting, "dim": dim, "num_train": num_train,
            "num_test": num_test, "corpus_size": corpus_size, "seed": seed,
        },
        "corpus": {"documents": corpus_size, "random": num_random},
        "target_distance": report,
    }  # fmt: skip
    splits = {split: _dataset(split, vectors) for split, vectors in inputs.items()}
    documents = _documents(splits, num_random)
    vectors = _corpus_blocks(list(inputs.values()), lambda block: apply(weights, block), num_random, dim, rngs[3])
    encoder = {"name": name, "revision": None, "document_prompt": "", "query_prompt": ""}
    with atomic_directory(path) as folder:
        save_dataset_dir(folder / "dataset", splits, info)
        write_store(folder / "store", documents, vectors, encoder, dtype="float32")


def _check_arguments(
    transformation: str, setting: str, dim: int, num_train: int, num_test: int, corpus_size: int
) -> None:
    if transformation not in TRANSFORMATIONS:
        raise ValueError(f"transformation is {transformation!r}: choose from {list(TRANSFORMATIONS)}")
    if setting not in SETTINGS:
        raise ValueError(f"setting is {setting!r}: choose from {list(SETTINGS)}")
    for name, value, least in (("dim", dim, 3), ("num_train", num_train, 2), ("num_test", num_test, 1)):
        if value < least:
            raise ValueError(f"{name} is {value}: it must be at least {least}")
    needed = NUM_TARGETS * (num_train + num_test)
    if corpus_size < needed:
        raise ValueError(
            f"corpus_size is {corpus_size}, but the queries have {needed} targets: give at least that many"
        )


def _dataset(split: str, vectors: np.ndarray) -> RetrievalDataset:
    query_ids = [f"{split}-{query}" for query in range(len(vectors))]
    targets = [[[f"{query_id}-{target}"] for target in range(NUM_TARGETS)] for query_id in query_ids]
    return RetrievalDataset(query_ids, targets, answers=[[] for _ in query_ids], input_vectors=vectors)


def _documents(splits: dict[str, RetrievalDataset], num_random: int) -> pa.Table:
    """The documents without vectors or text: the targets of each split in order, then the random documents."""
    ids = [document for split in splits.values() for targets in split.targets for (document,) in targets]
    ids += [f"random-{number}" for number in range(num_random)]
    empty = pa.repeat(pa.scalar("", pa.string()), len(ids))
    return pa.table({"id": pa.array(ids, pa.string()), "title": empty, "text": empty})


def _corpus_blocks(
    inputs: list[np.ndarray],
    transform: Callable[[np.ndarray], np.ndarray],
    num_random: int,
    dim: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Yield the unit vectors of `_documents` in blocks, `(<= 5 * BLOCK, dim)` float32, to save memory."""
    for vectors in inputs:
        for start in range(0, len(vectors), BLOCK):
            yield _unit(transform(vectors[start : start + BLOCK]).reshape(-1, dim))
    for start in range(0, num_random, BLOCK):
        yield _unit(rng.standard_normal((min(BLOCK, num_random - start), dim), dtype=np.float32))


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (norms > 0).all():
        raise ValueError("a target is a zero vector or holds NaN: it cannot be normalised")
    return vectors / norms
