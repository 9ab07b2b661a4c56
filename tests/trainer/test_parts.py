"""Questions of several parts: whose target a vector gets, where it looks, and which is the last."""

from __future__ import annotations

import copy
from itertools import permutations
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from amer.corpus import write_store
from amer.data import RetrievalDataset
from amer.data.token_cache import TokenCache, TokenDataset, part_texts
from amer.search import ExactIndex, Searcher
from amer.trainer import AMERCollator, AMERTrainer, AMERTrainingArguments, RetrievalMetrics
from amer.trainer.losses import (
    NO_LABEL,
    matched_info_nce,
    part_loss,
    span_loss,
    stop_loss,
    target_log_probabilities,
)
from amer.trainer.parsing import parse
from amer.trainer.trainer import _read_parts
from modeling_amer import part_labels
from tests.conftest import DIM, build_mini, depths_of

PARTS = ["river", "bank of money", "spring?", "a, b"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tiny_encoder) -> SimpleNamespace:
    """Questions of 1 to 4 parts, each part with one of four documents; every sixth question without spans."""
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"d{i}" for i in range(30)]
    encoder = {"name": tiny_encoder, "revision": None, "document_prompt": "", "query_prompt": ""}
    store = write_store(folder / "store", pa.table({"id": ids, "title": ids, "text": ids}), vectors, encoder)
    queries, targets, spans = [], [], []
    for i in range(48):
        chosen = rng.permutation(4)[: 1 + i % 4]
        text, own = "", []
        for part in chosen:
            text += "; " if text else ""
            own.append([len(text), len(text) + len(PARTS[part])])
            text += PARTS[part]
        queries.append(text)
        targets.append([[f"d{part}"] for part in chosen])
        spans.append(own if i % 6 else [])
    dataset = RetrievalDataset(
        query_ids=[str(i) for i in range(48)], queries=queries, targets=targets, answers=[[]] * 48, spans=spans
    )
    return SimpleNamespace(store=store, dataset=dataset.link(store), encoder=tiny_encoder)


def collate(parts, rows, **options):
    collator = AMERCollator(build_mini(parts.encoder), parts.store, 2, **options)
    return collator([{**parts.dataset[row], "epoch": 3} for row in rows])


def test_targets_are_in_the_order_of_the_spans_and_tokens_in_their_parts(parts):
    rows = [1, 2, 3, 6, 7]
    batch = collate(parts, rows)
    assert batch["ordered"].tolist() == [True, True, True, False, True]
    tokens = build_mini(parts.encoder).document_encoder.encode_tokens([parts.dataset.queries[row] for row in rows])
    length = batch["input_vectors"].shape[1]
    for place, row in enumerate(rows):
        question, own = parts.dataset.queries[row], parts.dataset.spans[row]
        known = [cluster[0] for cluster in parts.dataset.target_rows[row]]
        found = [target for target in batch["target_ids"][place].tolist() if target >= 0]
        assert found == known if own else sorted(found) == sorted(known)
        offsets = [(0, 0)] * (length - len(tokens[place].offsets)) + tokens[place].offsets.tolist()
        for part in range(4):
            chosen = [offsets[i] for i in batch["part_mask"][place, part].nonzero()[:, 0].tolist()]
            text = "".join(question[start:end] for start, end in chosen)
            assert text == (question[slice(*own[part])].replace(" ", "") if part < len(own) else "")


def test_fewer_targets_are_drawn_in_the_order_of_their_parts(parts):
    seen = set()
    for seed in range(12):
        batch = collate(parts, [3], max_targets=2, seed=seed)
        known = [cluster[0] for cluster in parts.dataset.target_rows[3]]
        drawn = [known.index(target) for target in batch["target_ids"][0].tolist()]
        assert drawn == sorted(drawn) and len(drawn) == 2
        starts = batch["part_mask"][0].float().argmax(dim=1)
        assert starts[0] < starts[1]
        seen.add(tuple(drawn))
    assert len(seen) > 2


def test_vectors_from_the_cache_give_the_batch_of_the_encoder(parts, tmp_path):
    model = build_mini(parts.encoder)
    cache = TokenCache.build(tmp_path, model.document_encoder, parts.dataset.queries)
    cached, collator = TokenDataset(parts.dataset, cache), AMERCollator(model, parts.store, 2)
    here, there = (collator([source[row] for row in (1, 3, 6)]) for source in (parts.dataset, cached))
    assert here.keys() == there.keys()
    for name, value in here.items():
        torch.testing.assert_close(there[name].to(value.dtype), value, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("splits", [False, True])
def test_a_copy_of_the_collator_has_the_encoder_without_the_model(spanned, splits):
    """As a data-loading worker gets it that shares no memory."""
    model = build_splitting(spanned.encoder) if splits else build_mini(spanned.encoder)
    collator, copied = AMERCollator(model, spanned.store, 2), {}
    assert model._encoder is None  # it loads on first use
    expected = collator([spanned.dataset[row] for row in (1, 2)])
    twin = copy.deepcopy(collator, copied)
    assert id(model) not in copied
    found = twin([spanned.dataset[row] for row in (1, 2)])
    assert found.keys() == expected.keys() and found.pop("questions", None) == expected.pop("questions", None)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_collator_goes_to_another_process_also_if_no_encoder_is_named(spanned):
    model = build_mini(spanned.encoder)
    model.config.document_encoder = None
    twin = ForkingPickler.loads(ForkingPickler.dumps(AMERCollator(model, spanned.store, 2)))
    with pytest.raises(ValueError, match="names no document encoder"):
        twin([spanned.dataset[1]])


@pytest.mark.slow
def test_data_loading_workers_that_share_no_memory_give_the_same_batches(spanned):
    model = build_splitting(spanned.encoder)
    collator, rows = AMERCollator(model, spanned.store, 2), spanned.dataset.select([1, 2, 3, 4])
    options = {"batch_size": 2, "collate_fn": collator, "num_workers": 1, "multiprocessing_context": "spawn"}
    for found, expected in zip(DataLoader(rows, **options), DataLoader(rows, 2, collate_fn=collator), strict=True):
        assert found.pop("questions") == expected.pop("questions")
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("of_parts", [False, True])
def test_batches_of_similar_length_are_formed_without_reading_the_cache(spanned, tmp_path, monkeypatch, of_parts):
    model = build_splitting(spanned.encoder) if of_parts else build_mini(spanned.encoder)
    cached = TokenDataset.build(tmp_path / "cache", spanned.dataset, model.document_encoder, of_parts)
    read = []
    monkeypatch.setattr(TokenCache, "__getitem__", lambda self, index: read.append(index))
    options = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "per_device_train_batch_size": 4}
    args = AMERTrainingArguments(train_sampling_strategy="group_by_length", **options)
    trainer = AMERTrainer(
        model=model, args=args, train_dataset=cached, data_collator=AMERCollator(model, spanned.store, 2)
    )
    assert trainer._sampler.lengths == [len(question) for question in spanned.dataset.queries]
    assert read == []


# --------------------------------------------------------------------------------------------------------- losses


def problem(seed):
    generator = torch.Generator().manual_seed(seed)
    queries = normalize(torch.randn(5, 4, DIM, generator=generator), dim=-1).requires_grad_()
    candidates = normalize(torch.randn(20, DIM, generator=generator), dim=-1)
    index = torch.stack([torch.randperm(20, generator=generator)[:4] for _ in range(5)])
    mask = torch.arange(4) < torch.tensor([1, 2, 3, 4, 2])[:, None]
    return queries, candidates, index, mask


@pytest.mark.parametrize("seed", range(3))
def test_ordered_rows_keep_their_order_and_others_match_their_first_vectors(seed):
    queries, candidates, index, mask = problem(seed)
    ordered = torch.tensor([True, False, True, False, False])
    log_p = target_log_probabilities(queries, candidates, index, 0.1)
    expected = []
    for row, n in enumerate(mask.sum(dim=1).tolist()):
        orders = [tuple(range(n))] if ordered[row] else list(permutations(range(n)))
        expected.append(max(sum(log_p[row, i, j] for i, j in enumerate(order)) for order in orders))
    loss = matched_info_nce(queries, candidates, index, mask, 0.1, ordered=ordered)
    torch.testing.assert_close(loss, -sum(expected) / mask.sum())
    (gradient,) = torch.autograd.grad(loss, queries)
    assert (gradient[~mask] == 0).all() and (gradient[mask].norm(dim=-1) > 0).all()


def test_span_loss_equals_the_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 6, generator=generator, requires_grad=True)
    attention = logits.softmax(dim=-1)
    part_mask = torch.rand(3, 2, 6, generator=generator) < 0.5
    part_mask[1, 1] = False
    terms = [
        -torch.log(attention[b, j][part_mask[b, j]].sum()) for b in range(3) for j in range(2) if part_mask[b, j].any()
    ]
    assert len(terms) == 5
    torch.testing.assert_close(span_loss(attention, part_mask), sum(terms) / 5)
    torch.testing.assert_close(span_loss(attention, part_mask, num_items=7), sum(terms) / 7)
    nowhere = torch.zeros(1, 1, 6, dtype=torch.bool)
    nowhere[0, 0, 0] = True
    assert torch.isfinite(span_loss(torch.eye(6)[None, 1:2], nowhere))


def test_stop_loss_is_the_cross_entropy_of_the_last_target():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    pairs = [(0, 0, 1), (1, 0, 0), (1, 1, 1), (2, 0, 0), (2, 1, 0), (2, 2, 1)]
    terms = [binary_cross_entropy_with_logits(logits[b, j], torch.tensor(float(last))) for b, j, last in pairs]
    torch.testing.assert_close(stop_loss(logits, mask), sum(terms) / 6)
    torch.testing.assert_close(stop_loss(logits, mask, num_items=12), sum(terms) / 12)


# ------------------------------------------------------------------------------------------------------- training


def train(parts, folder, emission="one_pass", model=None, **options):
    model = build_mini(parts.encoder, emission=emission) if model is None else model
    arguments = {
        "output_dir": str(folder),
        "max_steps": 60,
        "per_device_train_batch_size": 16,
        "learning_rate": 5e-3,
        "num_random_negatives": 4,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        **options,
    }
    args = AMERTrainingArguments(**arguments)
    metrics = RetrievalMetrics(parts.dataset, ExactIndex(parts.store), args, ks=(4,))
    collator = AMERCollator(model, parts.store, args.num_random_negatives, args.max_targets, args.seed)
    trainer = AMERTrainer(
        model=model, args=args, train_dataset=parts.dataset, eval_dataset=parts.dataset, data_collator=collator,
        compute_metrics=metrics,
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.train()
    return trainer, model, before


def share_within_the_parts(model, dataset) -> float:
    """How much of its attention a vector has on the words of its part."""
    shares = []
    for question, own in zip(dataset.queries, dataset.spans, strict=True):
        found = model.attribute(question, len(own)) if own else []
        for (start, end), words in zip(own, found, strict=True):
            shares.append(sum(word.weight for word in words if start <= word.start < end))
    return float(np.mean(shares))


@pytest.mark.parametrize("emission", ["one_pass", "autoregressive"])
def test_a_model_learns_where_to_look_and_when_to_stop(parts, tmp_path, emission):
    untrained = build_mini(parts.encoder, emission=emission)
    trainer, model, before = train(parts, tmp_path, emission, max_steps=100, span_weight=2.0)
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"backbone.embed_tokens.weight"}
    counts = model.encode_query(parts.dataset.queries, num_query_vectors="auto").mask.sum(dim=1).tolist()
    right = [count == len(targets) for count, targets in zip(counts, parts.dataset.targets, strict=True)]
    assert np.mean(right) > 0.6  # one in four by chance
    assert share_within_the_parts(model, parts.dataset) > share_within_the_parts(untrained, parts.dataset) + 0.1
    assert trainer.evaluate()["eval_recall@4"] > 0.6


def test_without_a_span_weight_targets_are_matched_and_attention_is_free(parts, tmp_path):
    model = build_mini(parts.encoder, stop_score=False)
    trainer, _, _ = train(parts, tmp_path, model=model, max_steps=1, span_weight=0.0)
    batch = trainer.data_collator([parts.dataset[row] for row in (1, 2, 3)])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch)
        outputs = trainer.model(
            input_vectors=batch["input_vectors"], input_mask=batch["input_mask"], num_query_vectors=4
        )
    targets = trainer._gather_candidates(batch)
    expected = matched_info_nce(outputs.query_embeddings, temperature=trainer.args.temperature, **targets)
    torch.testing.assert_close(loss, expected)


def test_more_targets_than_query_tokens_are_refused(parts, tmp_path):
    trainer, _, _ = train(parts, tmp_path, max_steps=1)
    trainer.model.config.max_query_vectors = 3
    batch = trainer.data_collator([parts.dataset[3]])
    with pytest.raises(ValueError, match="4 targets, the model 3 query tokens: set max_targets"):
        trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("stop_score", {"objective": "mixture"}, r"objective is 'mixture'.*stop_score: set objective to 'matched'"),
        ("stop_score", {"stop_weight": 0.0}, r"stop_weight is 0.*stop_score.*set stop_weight above 0"),
        ("splits_questions", {"objective": "mixture"}, r"'mixture'.*splits_questions: set objective to 'matched'"),
        ("splits_questions", {"span_weight": 0.0}, r"span_weight is 0.*splits_questions.*set span_weight above 0"),
    ],
)
def test_a_training_that_would_leave_the_number_of_vectors_to_chance_is_refused(
    parts, tmp_path, kind, options, message
):
    model = build_mini(parts.encoder) if kind == "stop_score" else build_splitting(parts.encoder)
    with pytest.raises(ValueError, match=message):
        train(parts, tmp_path / "out", model=model, max_steps=1, **options)
    words = [f"--{name}={value}" for name, value in options.items()]
    with pytest.raises(ValueError, match=message):
        parse(["--layers=1", "--dataset=data", "--store=store", "--use_cpu=1", f"--{kind}=true", *words])


def test_a_model_without_such_a_part_is_trained_by_the_mixture(parts, tmp_path):
    options = {"objective": "mixture", "span_weight": 0.0, "stop_weight": 0.0, "max_steps": 1}
    trainer, model, _ = train(parts, tmp_path, model=build_mini(parts.encoder, stop_score=False), **options)
    assert trainer._num_searched == model.config.num_query_vectors == 3 < model.config.max_query_vectors


@pytest.mark.parametrize("name", ["span_weight", "stop_weight"])
def test_negative_weights_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} must not be negative"):
        AMERTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: -1})


# ----------------------------------------------------------------------------------- a model that splits questions


@pytest.fixture(scope="module")
def spanned(parts) -> SimpleNamespace:
    """The questions whose spans are known."""
    rows = [row for row, own in enumerate(parts.dataset.spans) if own]
    return SimpleNamespace(store=parts.store, dataset=parts.dataset.select(rows), encoder=parts.encoder)


def build_splitting(encoder):
    return build_mini(encoder, splits_questions=True, stop_score=False, emission="autoregressive")


def test_every_part_is_a_row_and_every_whole_question_has_labels(spanned, tmp_path):
    model, rows = build_splitting(spanned.encoder), [0, 1, 2, 5]
    collator = AMERCollator(model, spanned.store, 2)
    batch = collator([spanned.dataset[row] for row in rows])
    texts = [spanned.dataset.queries[row] for row in rows]
    spans = [spanned.dataset.spans[row] for row in rows]
    own = [text[start:end] for text, places in zip(texts, spans, strict=True) for start, end in places]
    clusters = [cluster[0] for row in rows for cluster in spanned.dataset.target_rows[row]]
    assert batch["target_ids"][:, 0].tolist() == clusters and batch["target_ids"].shape == (len(own), 1)
    assert batch["questions"] == texts and batch["part_counts"].tolist() == [len(places) for places in spans]
    for row, text in enumerate(own):
        (tokens,) = model.document_encoder.encode_tokens([text])
        torch.testing.assert_close(batch["input_vectors"][row, -len(tokens.vectors) :], tokens.vectors)
        assert batch["input_mask"][row].sum() == len(tokens.vectors)
    for row, (text, places) in enumerate(zip(texts, spans, strict=True)):
        (tokens,) = depths_of(model, [text])
        length = len(tokens.vectors)
        torch.testing.assert_close(batch["input_words"][row, -length:], tokens.vectors, atol=1e-5, rtol=0)
        assert batch["words_mask"][row].sum() == length
        assert batch["part_labels"][row, -length:].tolist() == part_labels(places, tokens.offsets).tolist()
        assert (batch["part_labels"][row, :-length] == NO_LABEL).all()

    cache = TokenCache.build(tmp_path, model.document_encoder, part_texts(spanned.dataset))
    cached = collator([TokenDataset(spanned.dataset, cache, of_parts=True)[row] for row in rows])
    assert cached.keys() == batch.keys() and cached.pop("questions") == batch.pop("questions")
    for name, value in batch.items():
        torch.testing.assert_close(cached[name].to(value.dtype), value, atol=5e-3, rtol=1e-2)
    with pytest.raises(ValueError, match="has 40 questions, the cache 4"):
        TokenDataset(spanned.dataset, cache)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_parts_read_in_groups_have_the_vectors_they_have_in_one_pass(spanned, groups):
    model = build_splitting(spanned.encoder)
    batch = AMERCollator(model, spanned.store, 2)([spanned.dataset[row] for row in (3, 1, 0, 2)])
    parts = {name: batch[name] for name in ("input_vectors", "input_mask")}
    with torch.no_grad():
        together, grouped = model(**parts).query_embeddings, _read_parts(model, groups, **parts).query_embeddings
    torch.testing.assert_close(grouped, together, atol=1e-5, rtol=0)


def test_each_question_weighs_as_much_as_it_has_parts():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 5, 3, generator=generator), torch.randint(0, 3, (3, 5), generator=generator)
    labels[0, :3] = labels[2, :1] = NO_LABEL
    counts = torch.tensor([1, 4, 2])
    means = [cross_entropy(logits[row, start:], labels[row, start:]) for row, start in enumerate((3, 0, 1))]
    expected = (means[0] + 4 * means[1] + 2 * means[2]) / 7
    torch.testing.assert_close(part_loss(logits, labels, counts), expected)
    torch.testing.assert_close(part_loss(logits, labels, counts, num_items=14), expected / 2)


def test_a_model_learns_to_split_and_searches_each_part(spanned, tmp_path):
    options = {"max_steps": 120, "span_weight": 5.0, "learning_rate": 1e-2}
    trainer, model, before = train(spanned, tmp_path, model=build_splitting(spanned.encoder), **options)
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"backbone.embed_tokens.weight", "part_labeller.backbone.embed_tokens.weight"}
    found = [[part.text for part in own] for own in model.find_parts(spanned.dataset.queries)]
    questions = zip(spanned.dataset.queries, spanned.dataset.spans, strict=True)
    right = [
        own == [text[start:end] for start, end in spans] for own, (text, spans) in zip(found, questions, strict=True)
    ]
    assert np.mean(right) > 0.7  # a third of them have one part
    assert trainer.evaluate()["eval_recall@4"] > 0.85  # searched as they are split
    model.config.document_encoder = spanned.store.encoder
    searcher = Searcher(model, ExactIndex(spanned.store))
    assert [hit.id for hit in searcher.search("a, b; river", k=2)[0]] == ["d3", "d0"]


def test_questions_without_spans_cannot_teach_splitting(parts, spanned):
    collator = AMERCollator(build_splitting(parts.encoder), parts.store, 2)
    with pytest.raises(ValueError, match="question 0 does not have a span"):
        collator([parts.dataset[0]])
    with pytest.raises(ValueError, match=r"does not have a span.*leave out max_targets"):
        AMERCollator(build_splitting(parts.encoder), parts.store, 2, max_targets=1)([spanned.dataset[2]])


def test_distributed_training_hears_of_every_parameter_once(spanned, tmp_path):
    """The words of the questions go with one of several passes, and DDP looks for unused parameters in the last."""
    model = build_splitting(spanned.encoder).train()
    batch = AMERCollator(model, spanned.store, 2)([spanned.dataset[row] for row in range(4)])
    inputs = {name: batch[name] for name in ("input_vectors", "input_mask", "input_words", "words_mask")}
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        distributed = DistributedDataParallel(model, find_unused_parameters=True)
        for _ in range(2):
            output = _read_parts(distributed, 2, **inputs)
            (output.query_embeddings.sum() + output.part_logits.square().sum()).backward()
    finally:
        dist.destroy_process_group()
    assert model.part_labeller.output_projection.weight.grad.abs().max() > 0
