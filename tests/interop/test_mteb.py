"""AMER in mteb: its rankings, its figures and its metadata, on corpora held in memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

pytestmark = pytest.mark.slow

mteb = pytest.importorskip("mteb", minversion="2.0")
datasets = pytest.importorskip("datasets")

from mteb.abstasks.retrieval import AbsTaskRetrieval  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.models.models_protocols import SearchProtocol  # noqa: E402

from amer.corpus import DocumentEncoder  # noqa: E402
from amer.data.wordnet import query_lemmas, read_extract  # noqa: E402
from amer.evaluation.mteb import AMERSearch  # noqa: E402
from amer.search import Searcher  # noqa: E402
from modeling_amer import AMERConfig  # noqa: E402
from tests.conftest import DIM, build, build_mini  # noqa: E402

ENCODER = {"name": "toy", "revision": None, "document_prompt": "", "query_prompt": ""}
OPTIONS = {"hf_split": "test", "hf_subset": "default", "encode_kwargs": {"batch_size": 8, "show_progress_bar": False}}


def task_class(name: str, corpus, queries, relevant: dict[str, dict[str, int]]) -> type[AbsTaskRetrieval]:
    """A retrieval task whose data are given."""

    class InMemory(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name,
            dataset={"path": "org/none", "revision": "none"},
            description="in memory",
            type="Retrieval",
            category="t2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="recall_at_10",
            reference=None,
            date=None,
            domains=None,
            task_subtypes=None,
            license=None,
            annotations_creators=None,
            dialect=None,
            sample_creation=None,
            bibtex_citation=None,
        )

        def load_data(self, **kwargs) -> None:
            data = {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
            self.dataset, self.data_loaded = {"default": {"test": data}}, True

    return InMemory


def evaluated(search: AMERSearch, task: AbsTaskRetrieval) -> dict[str, float]:
    result = mteb.evaluate(search, task, cache=None, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


# ---------------------------------------------------------------------------------- a run whose ranking is known


class PlaneEncoder:
    """A document's text is its two coordinates."""

    dim = 2

    def __init__(self, identity: dict | None = None) -> None:
        self.identity = identity or ENCODER
        self.encoded = 0

    def encode_documents(self, documents, batch_size):
        self.encoded += len(documents)
        vectors = np.array([text.split() for text in documents["text"].to_pylist()], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class PlaneModel(torch.nn.Module):
    """Its first query vector lies on the first axis, its second on the second, whatever the question."""

    def __init__(self, objective: str = "matched", **config) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(3, 2)
        fields = {"document_encoder": ENCODER, "document_dim": 2, "prompt_template": "{query}"}
        decoder = {"text_config": {"model_type": "llama", "max_position_embeddings": 16}}
        training = {"objective": objective, "loss_temperature": 0.5}
        self.config = AMERConfig(**{**fields, **decoder, **training, **config})

    def get_input_embeddings(self):
        return self.words

    def encode_query(self, texts, input_vectors=None, num_query_vectors=None, batch_size=64):
        return torch.eye(2)[None, :num_query_vectors].repeat(len(texts), 1, 1)


CORPUS = {"id": ["x", "near x", "between", "y"], "text": ["1 0", "0.96 0.28", "0.707 0.707", "0.6 0.8"]}
QUERIES = {"id": ["q0", "q1"], "text": ["anything", "something else"]}
# By the first vector: x 1, near x .96, between .707, y .6. By the second: y .8, between .707, near x .28, x 0.
ROUND_ROBIN = ["x", "y", "near x", "between"]  # found at 1, .8, .96, .707: not the order of these
MIXTURE = ["near x", "x", "y", "between"]  # logsumexp of the two, divided by 0.5: 2.149, 2.127, 2.113, 2.107


@pytest.fixture
def task() -> AbsTaskRetrieval:
    relevant = {"q0": {"x": 1, "y": 1}, "q1": {"between": 1}}
    corpus, queries = datasets.Dataset.from_dict(CORPUS), datasets.Dataset.from_dict(QUERIES)
    loaded = task_class("AMERPlane", corpus, queries, relevant)()
    loaded.load_data()
    return loaded


def searched(search: AMERSearch, task: AbsTaskRetrieval, top_k: int = 10, **options) -> dict[str, list[str]]:
    """Rankings as mteb reads them: by falling score."""
    data, options = task.dataset["default"]["test"], {**OPTIONS, **options}
    search.index(data["corpus"], task_metadata=task.metadata, **options)
    found = search.search(data["queries"], task_metadata=task.metadata, top_k=top_k, **options)
    return {query: sorted(scores, key=scores.get, reverse=True) for query, scores in found.items()}


@pytest.mark.parametrize(("objective", "expected"), [("matched", ROUND_ROBIN), ("mixture", MIXTURE)])
def test_mteb_ranks_as_the_objective_fuses(objective, expected, task, tmp_path):
    search = AMERSearch(PlaneModel(objective), PlaneEncoder(), tmp_path, "org/plane")
    assert searched(search, task) == {"q0": expected, "q1": expected}


def test_scores_of_a_mixture_are_its_own(task, tmp_path):
    search = AMERSearch(PlaneModel("mixture"), PlaneEncoder(), tmp_path, "org/plane")
    data = task.dataset["default"]["test"]
    search.index(data["corpus"], task_metadata=task.metadata, **OPTIONS)
    found = search.search(data["queries"], task_metadata=task.metadata, top_k=2, **OPTIONS)
    assert list(found["q0"]) == ["near x", "x"]
    assert found["q0"]["near x"] == pytest.approx(np.log(np.exp(0.96 / 0.5) + np.exp(0.28 / 0.5)), abs=1e-3)


def test_top_k_and_the_number_of_query_vectors_are_kept(task, tmp_path):
    search = AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane", num_query_vectors=1)
    assert searched(search, task, top_k=3)["q0"] == ["x", "near x", "between"]
    assert search.mteb_model_meta.experiment_kwargs == {"num_query_vectors": 1}


def test_mteb_measures_what_is_ranked(task, tmp_path):
    scores = evaluated(AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane"), task)
    assert scores["recall_at_1"] == pytest.approx(0.25)  # one of q0's two documents, none of q1's one
    assert scores["recall_at_3"] == pytest.approx(0.5)
    assert scores["mrr_at_10"] == pytest.approx((1 + 1 / 4) / 2)


def test_an_encoded_corpus_is_found_again(task, tmp_path):
    encoder = PlaneEncoder()
    for objective in ("matched", "mixture"):
        searched(AMERSearch(PlaneModel(objective), encoder, tmp_path, "org/plane"), task)
    assert encoder.encoded == len(CORPUS["id"])
    searched(AMERSearch(PlaneModel(), encoder, tmp_path, "org/plane"), task, hf_split="dev")
    assert encoder.encoded == 2 * len(CORPUS["id"])


def test_a_store_of_another_corpus_is_refused(task, tmp_path):
    search = AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane")
    searched(search, task)
    other = datasets.Dataset.from_dict({**CORPUS, "text": ["1 1"] * 4})
    with pytest.raises(ValueError, match="records other contents"):
        search.index(other, task_metadata=task.metadata, **OPTIONS)


def test_a_corpus_may_have_titles_for_some(tmp_path, task):
    corpus = datasets.Dataset.from_dict({**CORPUS, "title": ["A", None, "", None]})
    search = AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane")
    search.index(corpus, task_metadata=task.metadata, **OPTIONS)
    documents = search._searcher.store.documents([0, 1, 2, 3])
    assert [document["title"] for document in documents] == ["A", "", "", ""]


def test_a_model_that_embeds_its_questions_itself_is_searched_with(task, tiny_encoder, tmp_path):
    model = build_mini(tiny_encoder, stop_score=False).eval()
    encoder = DocumentEncoder(tiny_encoder)
    model.config.document_encoder = encoder.identity
    search = AMERSearch(model, encoder, tmp_path, "org/mini")
    found = searched(search, task, top_k=4)
    searcher = Searcher.from_documents(model, pa.table({**CORPUS, "title": [""] * 4}), encoder=encoder)
    expected = searcher.search(QUERIES["text"], k=4)
    assert list(found.values()) == [[hit.id for hit in hits] for hits in expected]


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (PlaneModel(document_encoder={**ENCODER, "revision": "1"}), "org/plane", "document encoder .*'1'"),
        (PlaneModel(prompt_template=None), "org/plane", "vectors only"),
        (PlaneModel(), "plane", "organisation/model"),
    ],
    ids=["encoder", "vectors", "name"],
)
def test_what_cannot_be_evaluated_is_refused_before_encoding(model, name, message, tmp_path):
    encoder = PlaneEncoder()
    with pytest.raises(ValueError, match=message):
        AMERSearch(model, encoder, tmp_path, name)
    assert not encoder.encoded


def test_options_that_would_be_ignored_are_refused(task, tmp_path):
    search = AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane")
    with pytest.raises(ValueError, match="precision"):
        searched(search, task, encode_kwargs={"batch_size": 8, "precision": "int8"})


@pytest.mark.parametrize(
    ("queries", "options", "message"),
    [
        (QUERIES, {"top_ranked": {"q0": ["x"]}}, "re-rank"),
        ({**QUERIES, "instruction": ["only rivers"] * 2}, {}, "instructions"),
        ({**QUERIES, "text": [[{"role": "user", "content": "hi"}]] * 2}, {}, "conversations"),
    ],
    ids=["reranking", "instruction", "conversation"],
)
def test_other_tasks_than_plain_retrieval_are_refused(queries, options, message, task, tmp_path):
    search = AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane")
    searched(search, task)
    with pytest.raises(ValueError, match=message):
        search.search(datasets.Dataset.from_dict(queries), task_metadata=task.metadata, top_k=3, **OPTIONS, **options)


def test_searching_before_indexing_is_refused(task, tmp_path):
    search = AMERSearch(PlaneModel(), PlaneEncoder(), tmp_path, "org/plane")
    with pytest.raises(RuntimeError, match="index"):
        search.search(datasets.Dataset.from_dict(QUERIES), task_metadata=task.metadata, top_k=3, **OPTIONS)


# ------------------------------------------------------------------------------------------------- the real encoder


@pytest.fixture(scope="module")
def senses() -> AbsTaskRetrieval:
    """Lemmas of WordNet as queries, the glosses of their senses as relevant documents, among others."""
    wordnet = read_extract()
    lemmas = query_lemmas(wordnet)["validation"][::100]
    relevant = {f"q{i}": dict.fromkeys(wordnet.senses[lemma], 1) for i, lemma in enumerate(lemmas)}
    ids = list(dict.fromkeys([*(d for row in relevant.values() for d in row), *list(wordnet.glosses)[::500]]))
    corpus = datasets.Dataset.from_dict({"id": ids, "text": [wordnet.glosses[i] for i in ids]})
    queries = datasets.Dataset.from_dict({"id": list(relevant), "text": lemmas})
    loaded = task_class("AMERSenses", corpus, queries, relevant)()
    loaded.load_data()
    return loaded


@pytest.mark.parametrize("objective", ["matched", "mixture"])
def test_an_untrained_anchored_model_scores_as_its_encoder_does(llama, minilm, senses, objective, tmp_path):
    """Untrained, every query vector of an anchored model is the encoder's own, whatever the decoder."""
    model = build(llama, document_dim=minilm.dim, document_encoder=minilm.identity, anchored=True)
    model.config.objective = objective
    scores = evaluated(AMERSearch(model, minilm, tmp_path, "org/amer"), senses)

    data = senses.dataset["default"]["test"]
    documents = minilm.encode_documents([{"title": "", "text": text} for text in data["corpus"]["text"]])
    documents = documents.astype(np.float16).astype(np.float32)  # as they are stored
    queries = minilm.encode_queries(list(data["queries"]["text"]))
    ids = np.array(data["corpus"]["id"])
    for k in (3, 10):
        best = ids[np.argsort(-queries @ documents.T, axis=1)[:, :k]]
        found = dict(zip(data["queries"]["id"], best, strict=True))
        recall = [np.isin(list(data["relevant_docs"][query]), row).mean() for query, row in found.items()]
        assert scores[f"recall_at_{k}"] == pytest.approx(np.mean(recall), abs=1e-5)
    assert 0.1 < scores["recall_at_10"] < 1  # neither trivial nor impossible


def test_a_model_that_reads_text_alone_is_evaluated_too(llama, minilm, senses, tmp_path):
    model = build(llama, document_dim=minilm.dim, document_encoder=minilm.identity)
    search = AMERSearch(model, minilm, tmp_path, "org/amer")
    scores = evaluated(search, senses)
    rankings = searched(search, senses, top_k=10)
    relevant = senses.dataset["default"]["test"]["relevant_docs"]
    recall = [np.isin(list(relevant[query]), ids).mean() for query, ids in rankings.items()]
    assert scores["recall_at_10"] == pytest.approx(np.mean(recall), abs=1e-5)


def test_the_metadata_say_what_the_model_says(llama, minilm, tmp_path):
    model = build(llama, document_dim=minilm.dim, document_encoder=minilm.identity)
    search = AMERSearch(model, minilm, tmp_path, "org/amer", revision="v1")
    assert isinstance(search, SearchProtocol)
    meta = search.mteb_model_meta
    assert (meta.name, meta.revision, meta.adapted_from) == ("org/amer", "v1", llama)
    assert meta.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert meta.n_embedding_parameters == 260 * 16
    assert meta.embed_dim == minilm.dim != DIM
    assert meta.similarity_fn_name == "custom"
    unknown = ("license", "open_weights", "training_datasets", "public_training_data", "languages", "release_date")
    assert all(getattr(meta, name) is None for name in unknown)
    assert meta.experiment_kwargs is None
