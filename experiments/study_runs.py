"""The trainings and searches of a study; every run is saved, so nothing is trained again to draw it."""

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

DEPTH, CANDIDATES = 100, 500  # documents a run holds, and that MMR chooses from (paper A.7)
SCALE = 0.5  # of a random perturbation, against a vector of length one
TRAINED = {
    "Single-Query": SINGLE_QUERY,
    "AMER": {},
    "Always Predicted": {"scheduled_sampling": "always_predicted"},
}
"""What is trained for every base model and seed: fields of `amer train` over the study's YAML file (§6.2)."""


def training_jobs(data: StudyData) -> dict[tuple[str, str, int], Job]:
    """(base model, system, seed) -> its training, the costly ones first."""
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
    """A base model for `amer train`: where it is, or for one cut after some layers a folder where those are saved."""
    source = resolve_model(decoder.name)
    if decoder.layers is None:
        return source
    path = folder / f"{slug(decoder.name)}-{decoder.layers}"
    if not path.exists():
        most = AutoConfig.from_pretrained(source).num_hidden_layers
        if decoder.layers > most:  # transformers would fill up with random ones
            raise ValueError(f"{decoder.name} has {most} layers: it cannot be cut after {decoder.layers}")
        with atomic_directory(path) as temporary:
            AutoModel.from_pretrained(source, num_hidden_layers=decoder.layers).save_pretrained(temporary)
            AutoTokenizer.from_pretrained(source).save_pretrained(temporary)
    return str(path)


def retriever_runs(data: StudyData) -> dict[str, Run]:
    """Off-the-shelf retrievers on the test questions: retriever -> run (paper §3)."""
    test = data.splits["test"]

    def search_with(name: str) -> Run:
        return Run(name, test.query_ids, *data.retriever(name).search(test.queries, DEPTH))

    return {name: kept(data, data.folder / "runs", name, search_with) for name in data.study.retrievers}


def reference_runs(data: StudyData) -> dict[str, Run]:
    """What needs no training: the encoder's vectors of rewritten questions fused, and an upper bound."""
    test, m = data.splits["test"], data.spec.num_query_vectors

    def rewrites(name: str) -> Run:
        vectors = data.encoder.encode_queries([text for texts in data.rewritten.queries for text in texts])
        return search(name, data, vectors.reshape(len(test), -1, data.store.dim), fusion=reciprocal_rank)

    def oracle(name: str) -> Run:
        return search(name, data, oracle_query_embeddings(test.target_rows, data.store, m, seed=0))

    made = {"LLM rewrites, RRF": rewrites, "k-means oracle": oracle}
    return {name: kept(data, data.folder / "runs", name, make) for name, make in made.items()}


def trained_runs(data: StudyData, parallel: int) -> dict[tuple[str, str, int], Run]:
    """All systems that stand on a trained model: (base model, system, seed) -> run on the test questions.

    What is not trained yet is trained. The runs of AMER hold its query embeddings.
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
        for name, make in made.items():  # beside the model, so that they go with it when it is trained anew
            runs[base, name, seed] = kept(data, job.output / "runs", name, make)
    return runs


class Trained:
    """A trained model and the ways to search with it; loaded when the first of them is asked for."""

    def __init__(self, data: StudyData, job: Job) -> None:
        self.data = data
        self.job = job

    def run(self, name: str) -> Run:
        """As it was trained: its query vectors, fused (paper §4.2)."""
        return self._search(name, self._test_embeddings)

    def expanded_run(self, name: str) -> Run:
        """Questions with the keywords of a chat model (paper A.7)."""
        return self._search(name, self._encode(self.data.expanded_test))

    def reranked_run(self, name: str) -> Run:
        """Maximal marginal relevance over the top 500, lambda chosen on the validation questions (paper A.7)."""
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
        """As many searches as AMER makes, with random vectors around the one there is."""
        m = self.data.spec.num_query_vectors
        return self._search(name, perturb(self._test_embeddings[:, 0], m, SCALE, self.job.overrides["seed"]))

    def averaged_run(self, name: str) -> Run:
        """AMER's vectors in one: what MaxSim over one vector a document comes to."""
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
    """The run of a name saved in a folder, made and saved if it is not there."""
    folder = parent / slug(name)
    if not folder.exists():
        data.console.print(f"[bold]{data.name}[/]: searching, {folder.relative_to(data.folder)}")
        make(name).save(folder, data.store)
    run = Run.load(folder, data.store)
    if run.query_ids != data.splits["test"].query_ids:
        raise ValueError(f"{folder} is a run on other questions than {data.dataset} has: remove it")
    return run


def _one_list(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The lists of a single query vector: `(q, 1, k)` -> `(q, k)`, rows and scores."""
    rows, scores = found
    return rows[:, 0], scores[:, 0]
