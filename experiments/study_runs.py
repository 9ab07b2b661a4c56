"""The trainings and searches of a study. Every run is saved, so that drawing it needs no new training."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoModel, AutoTokenizer

from amer.baselines.averaging import average
from amer.baselines.mmr import mmr, tune_trade_off
from amer.baselines.oracle import oracle_query_embeddings
from amer.baselines.perturbation import perturb
from amer.data import RetrievalDataset
from amer.evaluation import mrecall_at_k
from amer.evaluation.runs import Run
from amer.files import atomic_directory, write_json
from amer.machine import chosen_device
from amer.offline import resolve_model
from amer.search import reciprocal_rank, round_robin, trained_fusion
from amer.search.fusion import Fusion
from amer.trainer import SINGLE_QUERY
from experiments.study import Decoder, slug
from experiments.study_data import StudyData
from experiments.training_jobs import ROOT, Job, run_all
from modeling_amer import AMERModel

DEPTH, CANDIDATES = 100, 500  # number of documents in a run, and of candidates for MMR (paper A.7)
SCALE = 0.5  # length of a random perturbation, relative to a vector of length one
TRAINED = {
    "Single-Query": SINGLE_QUERY,
    "AMER": {},
    "Always Predicted": {"scheduled_sampling": "always_predicted"},
}
"""The systems to train for each base model and seed: fields of `amer train` that replace those of the study (§6.2)."""


def training_jobs(data: StudyData) -> dict[tuple[str, str, int], Job]:
    """(base model, system, seed) -> training job, the costly jobs first."""
    where = {"dataset": data.dataset, "store": data.store.path}
    jobs = {}
    for (base, decoder), (system, fields), seed in product(
        data.study.base_models.items(), reversed(TRAINED.items()), data.study.seeds
    ):
        name = f"{base}, {system}, seed {seed}"
        overrides = {
            **data.study.overrides,
            **where,
            "base_model": decoder_folder(decoder, data.folder.parent / "decoders"),
            "num_query_vectors": data.spec.num_query_vectors,
            "seed": seed,
            **fields,
            **(data.study.single_query if system == "Single-Query" else {}),
        }
        jobs[base, system, seed] = Job(
            name, ROOT / data.spec.training, data.folder / "training" / slug(name), overrides
        )
    return jobs


def decoder_folder(decoder: Decoder, folder: Path) -> str:
    """The folder or name of a base model for `amer train`; a model cut after some layers is first saved."""
    source = resolve_model(decoder.name)
    if decoder.layers is None:
        return source
    path = folder / f"{slug(decoder.name)}-{decoder.layers}"
    if not path.exists():
        most = AutoConfig.from_pretrained(source).num_hidden_layers
        if decoder.layers > most:  # transformers would add random layers
            raise ValueError(f"{decoder.name} has {most} layers: it cannot be cut after {decoder.layers}")
        with atomic_directory(path) as temporary:
            AutoModel.from_pretrained(source, num_hidden_layers=decoder.layers).save_pretrained(temporary)
            AutoTokenizer.from_pretrained(source).save_pretrained(temporary)
    return str(path)


def retriever_runs(data: StudyData) -> dict[str, Run]:
    """Search the test questions with off-the-shelf retrievers: retriever -> run (paper §3)."""
    test = data.splits["test"]

    def search_with(name: str) -> Run:
        return Run(name, test.query_ids, *data.retriever(name).search(test.queries, DEPTH))

    return {name: kept(data, data.folder / "runs", name, search_with) for name in data.study.retrievers}


def reference_runs(data: StudyData) -> dict[str, Run]:
    """The runs without training: fused searches for rewritten questions, and an upper bound."""
    test, m = data.splits["test"], data.spec.num_query_vectors

    def rewrites(name: str) -> Run:
        vectors = data.encoder.encode_queries([text for texts in data.rewritten.queries for text in texts])
        return search(name, data, vectors.reshape(len(test), -1, data.store.dim), fusion=reciprocal_rank)

    def oracle(name: str) -> Run:
        return search(name, data, oracle_query_embeddings(test.target_rows, data.store, m, seed=0))

    made = {"LLM rewrites, RRF": rewrites, "k-means oracle": oracle}
    return {name: kept(data, data.folder / "runs", name, make) for name, make in made.items()}


def trained_runs(data: StudyData, parallel: int) -> dict[tuple[str, str, int], Run]:
    """Train what is not trained yet, and search: (base model, system, seed) -> run on the test questions.

    The runs of AMER hold its query embeddings.
    """
    jobs = training_jobs(data)
    run_all(list(jobs.values()), data.console, parallel)
    runs = {}
    for (base, system, seed), job in jobs.items():
        model = Trained(data, job)
        made = {system: model.run}
        if system == "Single-Query":
            made |= {
                "+Query Expansion": model.expanded_run,
                "+Re-ranking": model.reranked_run,
                "+Perturbations": model.perturbed_run,
            }
        if system == "AMER":
            made["AMER, averaged"] = model.averaged_run
        for name, make in made.items():  # beside the model, so that a new training removes them
            runs[base, name, seed] = kept(data, job.output / "runs", name, make)
    return runs


class Trained:
    """A trained model, loaded on the first search, and the ways to search with it."""

    def __init__(self, data: StudyData, job: Job) -> None:
        self.data = data
        self.job = job

    def run(self, name: str) -> Run:
        """Search as trained: fuse the lists of its query vectors (paper §4.2)."""
        return self._search(name, self._test_embeddings)

    def expanded_run(self, name: str) -> Run:
        """Search for questions with the keywords of a chat model (paper A.7)."""
        return self._search(name, self._encode(self.data.expanded_test))

    def reranked_run(self, name: str) -> Run:
        """Re-rank the top 500 by maximal marginal relevance; lambda is tuned on the validation questions (A.7)."""
        data, validation = self.data, self.data.splits["validation"]
        rows, scores = _one_list(data.index.search(self._encode(validation), CANDIDATES))

        def metric(chosen: np.ndarray) -> float:
            return float(mrecall_at_k(chosen, validation.target_rows, DEPTH).mean())

        trade_off, tried = tune_trade_off(rows, scores, data.store, DEPTH, metric)
        write_json(self.job.output / "trade_off.json", {"chosen": trade_off, "tried": tried})
        candidates = _one_list(data.index.search(self._test_embeddings, CANDIDATES))
        rows, scores = mmr(*candidates, data.store, DEPTH, trade_off)
        return Run(name, data.splits["test"].query_ids, rows, scores)

    def perturbed_run(self, name: str) -> Run:
        """Search as often as AMER, with random vectors around the single query vector."""
        m = self.data.spec.num_query_vectors
        return self._search(name, perturb(self._test_embeddings[:, 0], m, SCALE, self.job.overrides["seed"]))

    def averaged_run(self, name: str) -> Run:
        """Search with the mean of AMER's vectors, which equals MaxSim with one vector per document."""
        return self._search(name, average(self._test_embeddings))

    @cached_property
    def _model(self) -> AMERModel:
        return AMERModel.from_pretrained(self.job.output).to(chosen_device())

    @cached_property
    def _test_embeddings(self) -> np.ndarray:
        return self._encode(self.data.splits["test"])

    def _encode(self, questions: RetrievalDataset) -> np.ndarray:
        vectors = questions.input_vectors if self._model.config.anchored else None
        return self._model.encode_query(questions.queries, input_vectors=vectors).float().cpu().numpy()

    def _search(self, name: str, query_embeddings: np.ndarray) -> Run:
        config = self._model.config
        return search(name, self.data, query_embeddings, trained_fusion(config.objective, config.loss_temperature))


def search(name: str, data: StudyData, query_embeddings: np.ndarray, fusion: Fusion = round_robin) -> Run:
    """Search the test questions' vectors `(q, m, dim)` and fuse the m lists."""
    rows, scores = data.index.search(query_embeddings, DEPTH)
    fused = fusion(rows, scores, DEPTH, query_embeddings, data.store)
    return Run.from_fused(name, data.splits["test"].query_ids, fused, query_embeddings)


def kept(data: StudyData, parent: Path, name: str, make: Callable[[str], Run]) -> Run:
    """Load the run of a name from a folder, or make and save it."""
    folder = parent / slug(name)
    if not folder.exists():
        data.console.print(f"[bold]{data.name}[/]: searching, {folder.relative_to(data.folder)}")
        make(name).save(folder, data.store)
    run = Run.load(folder, data.store)
    if run.query_ids != data.splits["test"].query_ids:
        raise ValueError(f"{folder} is a run on other questions than those of {data.dataset}: remove it")
    return run


def _one_list(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Take the lists of a single query vector: rows and scores `(q, 1, k)` -> `(q, k)`."""
    rows, scores = found
    return rows[:, 0], scores[:, 0]
