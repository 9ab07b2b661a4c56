from __future__ import annotations

import hashlib
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from amer.corpus.store import DocumentStore
from amer.data import build_synthetic, load_dataset_dir
from amer.data import synthetic as module
from amer.files import read_json


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_rotation(matrix: np.ndarray) -> None:
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(len(matrix)), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 33])
def test_random_rotations_are_rotations(dim):
    assert_rotation(module.random_rotation(dim, rng(dim)))


def test_random_rotations_are_uniform():
    # Under the Haar measure the trace has mean 0 and variance 1, and no coordinate is preferred.
    rotations = np.stack([module.random_rotation(6, generator) for generator in [rng()] for _ in range(4_000)])
    traces = np.trace(rotations, axis1=1, axis2=2)
    assert abs(traces.mean()) < 0.06
    assert traces.var() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(rotations.mean(0), 0, atol=0.03)


@pytest.mark.parametrize("dim", [3, 4, 5, 6, 7, 32, 33])
def test_the_mlp_matrices_are_rotations_orthogonal_to_each_other(dim):
    rotations = module.orthogonal_rotations(dim, rng(dim))
    for matrix in rotations:
        assert_rotation(matrix)
    for left, right in combinations(rotations, 2):
        assert np.trace(left.T @ right) == pytest.approx(0, abs=1e-12)


def test_no_three_rotations_of_the_plane_are_orthogonal():
    with pytest.raises(ValueError, match="dim is 2"):
        module.orthogonal_rotations(2, rng())


def test_weights_come_in_opposite_pairs():
    linear = module.linear_weights(5, rng())
    np.testing.assert_array_equal(linear[0], np.eye(5))
    np.testing.assert_array_equal(linear[1:3], -linear[3:])
    mlp = module.mlp_weights(5, rng())
    np.testing.assert_array_equal(mlp[1:3], -mlp[3:])
    for matrix in (*linear[:3], *mlp[:3]):
        assert_rotation(matrix)


def test_linear_targets_sum_to_the_input():
    inputs = rng().standard_normal((7, 6)).astype(np.float32)
    weights = module.linear_weights(6, rng(1))
    targets = module.apply_linear(weights, inputs)
    assert targets.shape == (7, 5, 6)
    np.testing.assert_allclose(targets[3, 1], weights[1] @ inputs[3], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(targets[:, 1], -targets[:, 3])
    np.testing.assert_allclose(targets.sum(1), inputs, atol=1e-5)


def test_mlp_targets_are_those_of_a_hand_written_network():
    inputs = rng().standard_normal((3, 4))
    weights = module.mlp_weights(4, rng(1))
    targets = module.apply_mlp(weights, inputs)
    for query, x in enumerate(inputs):
        for target, matrix in enumerate(weights):
            hidden = [h * 0.5 * (1 + math.erf(h / math.sqrt(2))) for h in matrix @ x]
            np.testing.assert_allclose(targets[query, target], matrix @ np.array(hidden), atol=1e-5)


def expected_covariance(distribution: str, factor: np.ndarray) -> np.ndarray:
    identity = np.eye(len(factor))
    return {
        "gaussian": identity,
        "high_variance": 4 * identity,
        "correlated": 0.5 * factor @ factor.T + 0.1 * identity,
        "uniform": 4 / 3 * identity,
        "laplace": 2.1 * identity,
    }[distribution]


@pytest.mark.parametrize("distribution", module.DISTRIBUTIONS)
def test_inputs_have_the_moments_of_their_distribution(distribution):
    factor = module.random_factor(4, rng(1))
    inputs = module.sample_inputs(distribution, 200_000, factor, rng())
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(inputs.T), expected_covariance(distribution, factor), atol=0.045)
    kurtosis = np.mean(inputs**4) / np.mean(inputs**2) ** 2
    assert {"uniform": kurtosis < 2, "laplace": kurtosis > 5}.get(distribution, True)
    if distribution == "uniform":
        assert np.abs(inputs).max() <= 2


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match=r"'cauchy'.*gaussian"):
        module.sample_inputs("cauchy", 1, np.eye(2), rng())


def test_a_mixture_takes_an_even_share_of_each_distribution(monkeypatch):
    marks = {name: number for number, name in enumerate(module.DISTRIBUTIONS)}
    monkeypatch.setattr(module, "sample_inputs", lambda name, count, *_: np.full((count, 1), marks[name]))
    drawn = module.sample_mixture(module.SETTINGS["multi"][0], 50, np.eye(1), rng())[:, 0]
    np.testing.assert_array_equal(np.bincount(drawn), [10] * 5)
    assert (np.diff(drawn) < 0).any(), "the order is random"
    assert set(module.sample_mixture(module.SETTINGS["ood"][0], 40, np.eye(1), rng())[:, 0]) == {0, 1, 2, 3}
    assert set(module.sample_mixture(module.SETTINGS["ood"][1], 40, np.eye(1), rng())[:, 0]) == {4}


def test_distances_of_linear_targets_are_those_of_the_construction():
    inputs = rng().standard_normal((200, 64))
    targets = module.apply_linear(module.linear_weights(64, rng(1)), inputs)
    report = module.distance_report(targets)
    # Two of the ten pairs are opposite (cosine distance 2, Euclidean 2), the others nearly orthogonal.
    assert report["same_query_cosine"] == pytest.approx(1.2, abs=0.05)
    assert report["random_query_cosine"] == pytest.approx(1.0, abs=0.02)
    assert report["same_query_euclidean"] == pytest.approx(0.2 * 2 + 0.8 * math.sqrt(2), abs=0.05)
    assert report["random_query_euclidean"] == pytest.approx(math.sqrt(2), abs=0.02)
    with pytest.raises(ValueError, match="m >= 2"):
        module.distance_report(targets[:, :1])


SMALL = {"dim": 6, "num_train": 20, "num_test": 3, "corpus_size": 125}


@pytest.mark.parametrize("transformation", ["linear", "mlp"])
def test_the_store_holds_the_targets_of_every_query(tmp_path, monkeypatch, transformation):
    monkeypatch.setattr(module, "BLOCK", 4)
    build_synthetic(tmp_path / "out", transformation, "multi", **SMALL)
    splits = load_dataset_dir(tmp_path / "out" / "dataset")
    store = DocumentStore.open(tmp_path / "out" / "store")
    store.verify()
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "validation": 2, "test": 3}
    assert (len(store), store.dim, store.vectors([0]).dtype) == (125, 6, np.float32)
    assert store.encoder["name"] == f"synthetic/{transformation}-multi-6-0"
    assert store.ids[-1].as_py() == "random-9"
    make_weights, apply = module.TRANSFORMATIONS[transformation]
    weights = make_weights(6, rng(np.random.SeedSequence(0).spawn(1)[0]))
    for name, split in splits.items():
        assert split.targets[1] == [[f"{name}-1-{target}"] for target in range(5)]
        stored = store.vectors(np.array(split.link(store).target_rows)[:, :, 0])
        targets = apply(weights, split.input_vectors)
        np.testing.assert_allclose(stored, targets / np.linalg.norm(targets, axis=-1, keepdims=True), atol=1e-5)
    info = read_json(tmp_path / "out" / "dataset" / "dataset.json")
    assert info["corpus"] == {"documents": 125, "random": 10}
    assert info["target_distance"]["same_query_cosine"] > 0


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_seed_decides_every_byte(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        build_synthetic(tmp_path / name, "mlp", "ood", **SMALL, seed=seed)
    first, again, other = (checksums(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert len(first) == 7
    assert first["dataset/train.parquet"] != other["dataset/train.parquet"]
    assert first["store/embeddings-00000-of-00001.npy"] != other["store/embeddings-00000-of-00001.npy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformation": "cubic"}, "'cubic'.*linear"),
        ({"setting": "double"}, "'double'.*single"),
        ({"dim": 2}, "dim is 2"),
        ({"num_train": 1}, "num_train is 1"),
        ({"num_test": 0}, "num_test is 0"),
        ({"corpus_size": 114}, "corpus_size is 114.*115 targets"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        build_synthetic(tmp_path / "out", **{**SMALL, **changes})
    assert list(tmp_path.iterdir()) == []
