"""Training moves what it should, resumes exactly, validates by retrieval, and treats each row as if it were alone."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from amer.search import ExactIndex
from amer.trainer import AMERCollator, AMERTrainer, AMERTrainingArguments, RetrievalMetrics
from tests.conftest import build

OPTIONS = {
    "per_device_train_batch_size": 6,
    "learning_rate": 1e-2,
    "report_to": "none",
    "use_cpu": True,
    "save_strategy": "no",
    "disable_tqdm": True,
    "num_random_negatives": 16,
    "logging_steps": 1,
}


def make_trainer(model, world, folder, max_targets=None, **options) -> AMERTrainer:
    args = AMERTrainingArguments(output_dir=str(folder), max_targets=max_targets, **{**OPTIONS, **options})
    return AMERTrainer(
        model=model,
        args=args,
        train_dataset=world.dataset,
        eval_dataset=world.dataset,
        data_collator=AMERCollator(model, world.store, args.num_random_negatives, args.max_targets, args.seed),
        compute_metrics=RetrievalMetrics(world.dataset, ExactIndex(world.store), args, ks=(2, 10)),
    )


@pytest.mark.parametrize("options", [{}, {"objective": "mixture"}, {"gradient_checkpointing": True}], ids=str)
@pytest.mark.parametrize("anchored", [False, True])
def test_training_moves_every_lora_matrix_and_both_projections_and_nothing_else(
    base, world, tmp_path, options, anchored
):
    model = build(base, anchored=anchored)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_trainer(model, world, tmp_path, max_steps=6, **options).train()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    expected = {
        name for name in before if "lora_" in name or name.startswith(("input_projection", "output_projection"))
    }
    assert moved == expected and any("lora_A" in name for name in moved)


def test_full_training_moves_the_decoder(llama, world, tmp_path):
    model = build(llama, lora=None)
    before = {name: value.clone() for name, value in model.named_parameters()}
    make_trainer(model, world, tmp_path, max_steps=4).train()
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_training_learns_the_small_world(llama, world, tmp_path):
    trainer = make_trainer(build(llama), world, tmp_path, max_steps=200, learning_rate=1e-2)
    start = trainer.evaluate()
    trainer.train()
    end = trainer.evaluate()
    assert end["eval_loss"] < 0.6 * start["eval_loss"]
    assert end["eval_mrecall@10"] > start["eval_mrecall@10"] + 0.2, (start, end)


@pytest.mark.parametrize("anchored", [False, True])
def test_an_interrupted_run_resumes_to_the_same_bytes(llama, world, tmp_path, anchored):
    lora = {"r": 4, "lora_dropout": 0.2, "target_modules": ["q_proj", "v_proj"]}  # dropout draws random numbers too

    def run(name, **options):
        trainer = make_trainer(
            build(llama, lora=lora, anchored=anchored), world, tmp_path / name, max_steps=10, **options
        )
        return trainer

    whole = run("whole")
    whole.train()
    whole.save_model()
    broken = run("broken", save_strategy="steps", save_steps=3)
    broken.add_callback(StopAt(7))
    broken.train()
    resumed = run("broken", save_strategy="steps", save_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-6"))
    resumed.save_model()
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("broken", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def StopAt(step):
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step >= step

    return Stop()


def test_the_best_checkpoint_is_kept_and_retrieval_is_logged(llama, world, tmp_path):
    trainer = make_trainer(
        build(llama),
        world,
        tmp_path,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_recall@10",
        greater_is_better=True,
    )
    trainer.train()
    scores = [entry["eval_recall@10"] for entry in trainer.state.log_history if "eval_recall@10" in entry]
    assert len(scores) == 3 and trainer.state.best_metric == max(scores)
    assert trainer.evaluate()["eval_recall@10"] == max(scores)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["prediction_probability"] for entry in logs] == pytest.approx([min(0.8, i / 6) for i in range(6)])
    assert all(entry["num_candidates"] > 6 and entry["global_batch_size"] == 6 for entry in logs)
    checkpoint = tmp_path / "checkpoint-2"
    saved = load_file(checkpoint / "model.safetensors")
    assert all("lora_" in key or "projection" in key for key in saved)  # no base weight in a checkpoint
    assert json.loads((checkpoint / "config.json").read_text())["model_type"] == "amer"


def test_evaluation_is_the_retrieval_of_the_query_vectors(llama, world, tmp_path):
    from amer.evaluation import evaluate_model

    model = build(llama, document_encoder=world.store.encoder)
    metrics = make_trainer(model, world, tmp_path).evaluate()
    result = evaluate_model(model, world.dataset, ExactIndex(world.store), None, "model", ks=(2, 10))
    for name, values in result.values.items():
        assert metrics[f"eval_{name}"] == pytest.approx(values.mean())


def corpus_batch(trainer, world, rows):
    """A batch of some questions whose candidates are the whole corpus."""
    batch = trainer.data_collator([world.dataset[row] for row in rows])
    candidates = {"candidates": torch.from_numpy(world.vectors), "candidate_ids": torch.arange(len(world.vectors))}
    return {**batch, **candidates, "other_positives": torch.empty(0, 2, dtype=torch.long)}


def batch_loss(trainer, batch):
    """Loss of a batch, its gradient, and how many targets it is the mean of."""
    model = trainer.model
    model.zero_grad()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained])
    return loss.detach(), gradient, int((batch["target_ids"] >= 0).sum())


def test_questions_of_unequal_m_in_one_batch_count_as_each_alone(llama, world, tmp_path):
    trainer = make_trainer(build(llama).train(), world, tmp_path, scheduled_sampling="always_predicted")
    trainer.state.max_steps = 1
    rows = [0, 1, 2, 4, 5]
    loss, gradient, count = batch_loss(trainer, corpus_batch(trainer, world, rows))
    alone = [batch_loss(trainer, corpus_batch(trainer, world, [row])) for row in rows]
    assert [number for *_, number in alone] == [1, 2, 3, 2, 3] and count == 11
    torch.testing.assert_close(loss, sum(value * number for value, _, number in alone) / count)
    expected = sum(g * n for _, g, n in alone) / count
    assert (gradient - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


@pytest.mark.parametrize(("schedule", "fed"), [("teacher_forcing", True), ("always_predicted", False)])
def test_the_schedule_decides_what_the_decoder_reads(llama, world, tmp_path, schedule, fed):
    model = build(llama).train()
    trainer = make_trainer(model, world, tmp_path, scheduled_sampling=schedule)
    trainer.state.max_steps = 1
    batch = trainer.data_collator([world.dataset[row] for row in (2, 5)])  # three targets each
    _, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    questions = {key: batch[key] for key in ("input_ids", "attention_mask", "prefix_ids")}
    teacher = torch.from_numpy(world.vectors)[batch["target_ids"]] if fed else None
    expected = model(**questions, num_query_vectors=3, teacher_vectors=teacher)
    torch.testing.assert_close(outputs.query_embeddings, expected.query_embeddings)


def test_a_fifth_of_the_inputs_is_predicted_after_a_fifth_of_the_steps(llama, world, tmp_path, monkeypatch):
    model = build(llama).train()
    trainer = make_trainer(model, world, tmp_path)
    trainer.state.max_steps, trainer.state.global_step = 10, 2
    masks = []
    original = model.forward
    monkeypatch.setattr(model, "forward", lambda **batch: masks.append(batch["teacher_mask"]) or original(**batch))
    for epoch in range(60):
        trainer.compute_loss(model, trainer.data_collator([{**world.dataset[2], "epoch": epoch}]))
    share_of_gold = torch.cat(masks).float().mean()
    assert 0.7 < share_of_gold < 0.9


def test_an_accumulated_step_is_the_mean_over_all_its_targets(llama, world, tmp_path):
    """Batches with one, two and five targets, which a mean of means would weigh alike."""
    weights = []
    for parts in ([[0, 1, 2, 4]], [[0], [1], [2, 4]]):
        options = {"gradient_accumulation_steps": len(parts), "max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0}
        trainer = make_trainer(
            build(llama), world, tmp_path, scheduled_sampling="always_predicted", learning_rate=1e-3, **options
        )
        batches = iter([corpus_batch(trainer, world, rows) for rows in parts])
        trainer.data_collator = lambda examples, batches=batches: next(batches)
        trainer.train()
        weights.append(trainer.model.state_dict())
        logged = trainer.state.log_history[0]
        assert logged["global_batch_size"] == 6 * len(parts)
    whole, accumulated = weights
    before = build(llama).state_dict()
    assert not torch.equal(whole["output_projection.weight"], before["output_projection.weight"])
    for key in whole:
        torch.testing.assert_close(accumulated[key], whole[key], atol=2e-6, rtol=1e-5)


def test_the_model_remembers_what_it_was_trained_for(llama, world, tmp_path):
    trainer = make_trainer(build(llama), world, tmp_path, objective="mixture", temperature=0.1, max_steps=1)
    trainer.train()
    trainer.save_model()
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["objective"], config["loss_temperature"]) == ("mixture", 0.1)


def test_a_loss_that_is_not_finite_stops_the_training_with_its_checkpoints_kept(llama, world, tmp_path):
    trainer = make_trainer(build(llama), world, tmp_path, max_steps=4, save_strategy="steps", save_steps=1)
    original = trainer.compute_loss

    def spoilt(*args, **kwargs):
        return original(*args, **kwargs) * (torch.nan if trainer.state.global_step == 2 else 1)

    trainer.compute_loss = spoilt
    with pytest.raises(ValueError, match="not finite at step 3: training has diverged"):
        trainer.train()
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}


def test_weights_that_are_not_finite_never_push_out_a_good_checkpoint(llama, world, tmp_path):
    trainer = make_trainer(
        build(llama), world, tmp_path, max_steps=3, save_strategy="steps", save_steps=1, save_total_limit=1
    )
    original = trainer.training_step

    def infinite_gradient(*args):
        loss = original(*args)
        if trainer.state.global_step == 2:
            trainer.model.output_projection.weight.grad.fill_(torch.inf)
        return loss

    trainer.training_step = infinite_gradient
    with pytest.raises(ValueError, match=r"not finite at step 3 \(output_projection"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_batch_without_a_target_is_refused(llama, world, tmp_path):
    trainer = make_trainer(build(llama), world, tmp_path, max_steps=1)
    batch = corpus_batch(trainer, world, [0, 1])
    trainer.data_collator = lambda examples: {**batch, "target_ids": torch.full((2, 1), -1)}
    with pytest.raises(ValueError, match="No question of this step has a target"):
        trainer.train()


def test_an_answer_that_is_no_target_of_this_draw_is_no_negative_either(llama, world, tmp_path):
    model = build(llama).train()
    # At a temperature that leaves every candidate a share of the sum which float32 can tell.
    trainer = make_trainer(
        model, world, tmp_path, max_targets=1, scheduled_sampling="always_predicted", temperature=1.0
    )
    trainer.state.max_steps = 1
    batch = trainer.data_collator([world.dataset[2]])  # one of three answers
    everything = {"candidates": torch.from_numpy(world.vectors), "candidate_ids": torch.arange(len(world.vectors))}
    loss = trainer.compute_loss(model, {**batch, **everything})
    others = [row for row in range(len(world.vectors)) if [0, row] not in batch["other_positives"].tolist()]
    assert len(others) == len(world.vectors) - 2
    without = {"candidates": torch.from_numpy(world.vectors[others]), "candidate_ids": torch.tensor(others)}
    torch.testing.assert_close(loss, trainer.compute_loss(model, {**batch, **without}))
    everyone = {**batch, **everything, "other_positives": torch.empty(0, 2, dtype=torch.long)}
    assert trainer.compute_loss(model, everyone) > loss


@pytest.mark.parametrize("option", [{"dispatch_batches": True}, {"even_batches": False}])
def test_batches_that_would_be_cut_or_dealt_unevenly_are_refused(llama, world, tmp_path, option):
    with pytest.raises(ValueError, match="dispatch_batches, nor even_batches"):
        make_trainer(build(llama), world, tmp_path, accelerator_config=option)


def test_questions_are_dealt_by_length_when_asked(llama, world, tmp_path):
    trainer = make_trainer(build(llama), world, tmp_path, train_sampling_strategy="group_by_length")
    longest = [batch["attention_mask"].sum(dim=1).diff().abs().max() for batch in trainer.get_train_dataloader()]
    assert len(longest) == 4 and max(longest) <= 6  # questions differ by one letter each


def test_metrics_of_another_dataset_are_refused(llama, world, tmp_path):
    with pytest.raises(ValueError, match="for the dataset that is evaluated"):
        make_trainer(build(llama), world, tmp_path).evaluate(world.dataset.select(range(5)))


def test_arguments_that_cannot_be_are_refused(tmp_path):
    for options, message in [
        ({"objective": "ordered"}, "matched, mixture; got 'ordered'"),
        ({"scheduled_sampling": "cosine"}, "got 'cosine'"),
        ({"temperature": 0.0}, "positive"),
        ({"max_targets": 0}, "at least 1"),
        ({"num_random_negatives": -1}, "negative"),
        ({"auto_find_batch_size": True}, "set a batch size that fits"),
        ({"train_sampling_strategy": "sequential"}, "one of random, group_by_length; got 'sequential'"),
    ]:
        with pytest.raises(ValueError, match=message):
            AMERTrainingArguments(output_dir=str(tmp_path), **options)


@pytest.mark.parametrize(
    ("kind", "version", "message"), [("SHARDED", 2, "FULL_STATE_DICT"), ("FULL", 1, "set fsdp_version to 2")]
)
def test_fsdp_that_saves_shards_is_refused(llama, world, tmp_path, monkeypatch, kind, version, message):
    plugin = SimpleNamespace(state_dict_type=f"StateDictType.{kind}_STATE_DICT", fsdp_version=version)
    monkeypatch.setattr(AMERTrainer, "is_fsdp_enabled", True, raising=False)
    monkeypatch.setattr(AMERTrainer, "create_accelerator_and_postprocess", lambda self: fake_fsdp(self, plugin))
    with pytest.raises(ValueError, match=message):
        make_trainer(build(llama), world, tmp_path)


def fake_fsdp(trainer, plugin):
    """As if accelerate had set FSDP up, which it does not on a CPU."""
    trainer.accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin), unwrap_model=lambda model: model)
    trainer.is_fsdp_enabled, trainer.is_deepspeed_enabled, trainer.is_tp_enabled = True, False, False


def test_the_tokenizer_does_not_change_the_configuration(llama, world, tmp_path):
    model = build(llama)
    before = model.config.to_json_string()
    make_trainer(model, world, tmp_path, max_steps=1).train()
    changed = {"loss_temperature", "objective", "architectures"}
    after = json.loads(model.config.to_json_string())
    assert {key for key, value in json.loads(before).items() if after.get(key) != value} <= changed
