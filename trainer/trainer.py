"""AMERTrainer: the Hugging Face Trainer with AMER's loss, and with retrieval metrics during training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput, get_last_checkpoint

from amer.trainer.arguments import AMERTrainingArguments
from amer.trainer.candidates import Candidates, gather_candidates
from amer.trainer.checkpoints import TRAINER_STATE, remove_unfinished
from amer.trainer.epochs import EpochDataset, EpochSampler
from amer.trainer.losses import matched_info_nce, mixture_info_nce, part_loss, span_loss, stop_loss
from amer.trainer.publishing import PublishingTrainer
from amer.trainer.record import TrainingClock
from amer.trainer.resuming import is_trained
from amer.trainer.sampling import prediction_probability
from modeling_amer import AMEROutput, blank, emitted
from modeling_amer.staging_amer import finish_interrupted_save

# The fields of a batch other than the questions.
TARGETS = (
    "candidates", "candidate_ids", "target_ids", "other_positives", "sampling_uniforms", "query_index", "ordered",
    "part_mask", "part_labels", "part_counts", "questions",
)  # fmt: skip

PART_GROUPS = 4  # number of passes over the parts of a batch


class AMERTrainer(PublishingTrainer):
    """Trains an [`AMERModel`] on batches of an [`AMERCollator`] (paper §4.1).

    The Single-Query baseline is the same trainer with a collator of `max_targets=1`. Evaluation logs `eval_loss`, with
    predictions fed back, and the metrics that `compute_metrics` (see `RetrievalMetrics`) computes from the query
    vectors.

    Raises:
        ValueError: One process sees several GPUs, which would split its batches (use `accelerate launch`); FSDP has
            version 1 or saves shards; accelerate's options would split batches or distribute them unevenly; the
            training pushes a model that depends on a folder of this machine; or the model chooses the number of
            vectors, and the arguments do not train that choice.
    """

    args: AMERTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.args.check_model(self.model.config)
        if self.args.n_gpu > 1:
            raise ValueError("One process sees several GPUs: start one process per GPU with `accelerate launch`.")
        if self.is_fsdp_enabled:
            _check_fsdp(self.accelerator.state.fsdp_plugin)
        if self.train_dataset is not None:
            self._sampler = self._epoch_sampler(self.train_dataset)
            self.train_dataset = EpochDataset(self.train_dataset)
            self.add_callback(_EpochBegins(self._sampler))
        dealing: Any = self.args.accelerator_config  # always an AcceleratorConfig at this point
        if dealing.dispatch_batches or not dealing.even_batches:
            raise ValueError("accelerator_config must not set dispatch_batches, nor even_batches to false.")
        # The loss of an optimiser step is the mean over its targets in all processes and accumulated batches.
        self.model_accepts_loss_kwargs = True
        self._num_candidates, self._sampled_with = 0, 0.0
        self.add_callback(TrainingClock())
        model = self.accelerator.unwrap_model(self.model)
        model.config.objective, model.config.loss_temperature = self.args.objective, self.args.temperature

    @property
    def global_batch_size(self) -> int:
        """Number of questions per optimiser step, over all processes and accumulated batches."""
        args = self.args
        return args.per_device_train_batch_size * self.accelerator.num_processes * args.gradient_accumulation_steps

    @property
    def _num_searched(self) -> int:
        """Number of vectors per question in validation, before a stop score removes some."""
        config = self.model.config
        return config.max_query_vectors if config.chooses_number else config.num_query_vectors

    @property
    def prediction_probability(self) -> float:
        """p of scheduled sampling at the current step."""
        return prediction_probability(self.args.scheduled_sampling, self.state.global_step, self.state.max_steps)

    def _epoch_sampler(self, dataset: Any) -> EpochSampler:
        args, lengths = self.args, None
        if args.train_sampling_strategy == "group_by_length":
            lengths = [len(query) for query in dataset.queries or [""] * len(dataset)]
        seed = args.seed if args.data_seed is None else args.data_seed
        batch_size = args.per_device_train_batch_size * self.accelerator.num_processes
        return EpochSampler(len(dataset), batch_size, seed, lengths)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, as transformers' Trainer does, after completing an interrupted save in the output folder.

        From a checkpoint of the last step, no step is trained (the Trainer itself would train one more).

        Raises:
            OSError: The interrupted save holds symbolic links, which this trainer never writes.
        """
        if self.args.should_save:
            output = Path(self.args.output_dir)
            for folder in (output, *output.glob("checkpoint-*")):
                finish_interrupted_save(folder)
            remove_unfinished(output)
        self.accelerator.wait_for_everyone()
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            checkpoint = get_last_checkpoint(self.args.output_dir)
        if checkpoint and is_trained(checkpoint):
            return self._take_over(checkpoint)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _take_over(self, checkpoint: str) -> TrainOutput:
        """Restore the state of a training that ended with this checkpoint."""
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    def get_train_dataloader(self) -> DataLoader[Any]:
        """A data loader with the configured batch size (transformers 5.0 would resume with the checkpoint's size)."""
        self._train_batch_size = self.args.train_batch_size
        return super().get_train_dataloader()

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any]:
        return self._sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[Any]:
        return SequentialSampler(eval_dataset)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Compute the query vectors and score them against the candidates of the batch.

        Returns:
            The loss, a scalar; with `return_outputs` also the model's output.
        """
        questions = {key: value for key, value in inputs.items() if key not in TARGETS}
        targets = self._gather_candidates(inputs)
        self._num_candidates = len(targets["candidates"])
        temperature = self.args.temperature
        if self.args.objective == "mixture":
            outputs = model(**questions)
            loss = mixture_info_nce(
                outputs.query_embeddings, **targets, temperature=temperature, num_items=num_items_in_batch
            )
        else:
            if self.model.config.splits_questions:
                outputs = _read_parts(model, groups=min(PART_GROUPS, len(inputs["questions"])), **questions)
            else:
                outputs = self._emit_for_targets(model, questions, targets, inputs["sampling_uniforms"])
            vectors = outputs.query_embeddings[:, : targets["target_index"].shape[1]]
            ordered = inputs.get("ordered") if self.args.span_weight else None
            loss = matched_info_nce(
                vectors, **targets, temperature=temperature, num_items=num_items_in_batch, ordered=ordered
            )
            loss = loss + self._part_losses(outputs, inputs, targets, num_items_in_batch)
            if self.model.config.splits_questions:
                labels = inputs["part_labels"], inputs["part_counts"]
                split_loss = part_loss(outputs.part_logits, *labels, num_items_in_batch)
                loss = loss + self.args.span_weight * split_loss
        if num_items_in_batch is not None:  # counts all processes, whose gradients will be averaged
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _part_losses(
        self,
        outputs: Any,
        inputs: dict[str, torch.Tensor],
        targets: Candidates,
        num_items: torch.Tensor | int | None,
    ) -> torch.Tensor | float:
        """The losses of attention and stop score, as far as model and data have them."""
        loss: torch.Tensor | float = 0.0
        if outputs.attention is not None and "part_mask" in inputs and self.args.span_weight:
            loss = loss + self.args.span_weight * span_loss(outputs.attention, inputs["part_mask"], num_items)
        if outputs.stop_logits is not None:
            loss = loss + self.args.stop_weight * stop_loss(outputs.stop_logits, targets["target_mask"], num_items)
        return loss

    def _gather_candidates(self, inputs: dict[str, torch.Tensor]) -> Candidates:
        """The candidates of all processes, and this process's targets, padded to the same number in every process.

        All processes then make the same number of passes through the decoder, which sharded parameters require.
        """

        def alike(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            return self.accelerator.pad_across_processes(tensor, dim=dim, pad_index=-1)

        return gather_candidates(
            inputs["candidates"],
            inputs["candidate_ids"],
            alike(inputs["target_ids"], 1),
            inputs["other_positives"],
            lambda tensor: self.accelerator.gather(alike(tensor, 0)),
        )

    def _emit_for_targets(
        self,
        model: nn.Module,
        questions: dict[str, torch.Tensor],
        targets: Candidates,
        sampling_uniforms: torch.Tensor,
    ) -> Any:
        """A vector for each target: by scheduled sampling in training, with predictions fed back in validation."""
        num_targets = targets["target_index"].shape[1]
        config = self.model.config
        if config.emission == "one_pass" and num_targets > config.max_query_vectors:
            raise ValueError(
                f"A question has {num_targets} targets, the model {config.max_query_vectors} query tokens: set "
                f"max_targets to at most {config.max_query_vectors}, or build the model with more max_query_vectors."
            )
        if not model.training:  # feed predictions back, and make all vectors that the metrics search
            return model(**questions, num_query_vectors=max(num_targets, self._num_searched))
        if config.emission == "one_pass":
            return model(**questions, num_query_vectors=num_targets)
        p = self._sampled_with = self.prediction_probability
        return model(
            **questions,
            num_query_vectors=num_targets,
            teacher_vectors=targets["candidates"][targets["target_index"]] if p < 1 else None,
            teacher_mask=pad(sampling_uniforms, (0, num_targets - sampling_uniforms.shape[1])) >= p
            if 0 < p < 1
            else None,
        )

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device
    ) -> torch.Tensor | None:
        """The number of targets in an optimiser step, over all processes and accumulated batches.

        Raises:
            ValueError: The step has no target.
        """
        if not batch_samples:
            return None
        own = torch.stack([(batch["target_ids"] >= 0).sum() for batch in batch_samples]).sum().to(device)
        count = self.accelerator.reduce(own, "sum")
        if count == 0:
            raise ValueError("No question of this step has a target: use a dataset whose questions have targets.")
        return count

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward pass.

        Raises:
            ValueError: The loss of some process is not finite; all processes raise the error.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(self.accelerator.reduce(loss, "sum")):
            raise ValueError(
                f"The loss is not finite at step {self.state.global_step + 1}: training has diverged. Lower the "
                f"learning rate (now {self.args.learning_rate}); the checkpoints in {self.args.output_dir} are from "
                "earlier steps."
            )
        return loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The loss, the query vectors `(batch, m, dim)` and their rows in the dataset `(batch,)`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            count = self._get_num_items_in_batch([inputs], self.args.device)
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=count)
        if prediction_loss_only:
            return loss, None, None
        if self.model.config.splits_questions:
            found = self.model.encode_query(inputs["questions"], self._num_searched)
            return loss, found.to(self.args.device), inputs["query_index"]
        query_embeddings = outputs.query_embeddings
        if self.model.config.stop_score:
            query_embeddings = blank(query_embeddings, emitted(outputs.stop_logits))
        return loss, query_embeddings[:, : self._num_searched].contiguous(), inputs["query_index"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the questions per step, the candidates per question and the rate of fed-back predictions."""
        if "loss" in logs:
            logs["global_batch_size"] = self.global_batch_size
            logs["num_candidates"] = self._num_candidates
            if self.args.objective == "matched" and self.model.config.emission == "autoregressive":
                logs["prediction_probability"] = self._sampled_with
        super().log(logs, start_time)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, unless its weights are broken: it might replace a good one.

        Raises:
            ValueError: Some weights are not finite.
        """
        trained = ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
        broken = [name for name, weight in trained if not torch.isfinite(_own_part(weight)).all()]
        found = self.accelerator.reduce(torch.tensor(len(broken), device=self.args.device), "sum")
        if found:  # in any process: with sharded weights, the others cannot see it and would wait in the save
            raise ValueError(
                f"Weights are not finite at step {self.state.global_step} ({', '.join(broken[:3]) or 'elsewhere'}): "
                f"training has diverged, nothing is saved. Lower the learning rate (now {self.args.learning_rate})."
            )
        super()._save_checkpoint(*args, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        """Save the random state of every process before the main process completes the checkpoint."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()


def _read_parts(
    model: nn.Module, groups: int, input_vectors: torch.Tensor, input_mask: torch.Tensor, **words: torch.Tensor
) -> AMEROutput:
    """One vector per part, `(parts, 1, dim)`; parts of similar length share a pass, with little padding.

    The last group includes the words of the whole questions, because DDP treats parameters that the last pass does not
    use as unused. All processes have the same number of groups, because each pass gathers sharded parameters.
    """
    lengths = input_mask.sum(dim=1)
    order, found = lengths.argsort(), []
    for group, rows in enumerate(order.tensor_split(groups), 1):
        tokens = slice(-int(lengths[rows].max()), None)
        part = {"input_vectors": input_vectors[rows, tokens], "input_mask": input_mask[rows, tokens]}
        found.append(model(**part, **(words if group == groups else {})))
    vectors = torch.cat([output.query_embeddings for output in found])[order.argsort()]
    return AMEROutput(query_embeddings=vectors, part_logits=found[-1].part_logits)


def _check_fsdp(plugin: Any) -> None:
    if "FULL" not in str(plugin.state_dict_type):
        raise ValueError("FSDP would save shards of the whole model: set fsdp_state_dict_type to FULL_STATE_DICT.")
    if plugin.fsdp_version != 2:
        raise ValueError("FSDP must have version 2: set fsdp_version to 2, as in configs/accelerate/fsdp2.yaml.")


class _EpochBegins(TrainerCallback):
    """Tells the sampler which epoch begins. A data loader that skips batches of a resumed epoch would not do so."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


def _own_part(weight: torch.Tensor) -> torch.Tensor:
    """The part of a sharded weight in this process; other weights unchanged."""
    return weight.to_local() if hasattr(weight, "to_local") else weight
