"""AMERTrainer: the Hugging Face Trainer with AMER's loss, and its retrieval metrics while training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Trainer

from trainer.arguments import AMERTrainingArguments
from trainer.losses import matched_info_nce, mixture_info_nce
from trainer.sampling import prediction_probability

TARGETS = ("candidates", "target_index", "target_mask", "ignored")


class AMERTrainer(Trainer):
    """Trains an [`AMERModel`] on batches of an [`AMERCollator`] (paper §4.1).

    The Single-Query baseline is the same trainer with a collator of `max_targets=1`. Evaluation logs `eval_loss`
    with predictions fed back, and what `compute_metrics` (see `RetrievalMetrics`) says of the query vectors.

    Raises:
        ValueError: several GPUs in one process, which would tear a batch apart; use `accelerate launch`.
    """

    args: AMERTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError("One process sees several GPUs: start one process for each with `accelerate launch`.")
        self.model_accepts_loss_kwargs = False  # else gradient accumulation is scaled by a count we do not use
        self._num_candidates = 0
        config = self.accelerator.unwrap_model(self.model).config
        config.objective, config.loss_temperature = self.args.objective, self.args.temperature

    @property
    def prediction_probability(self) -> float:
        """p of scheduled sampling at the present step."""
        return prediction_probability(self.args.scheduled_sampling, self.state.global_step, self.state.max_steps)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Roll the query vectors out and score them against the candidates of the batch.

        Returns:
            The loss, a scalar; with `return_outputs` also the model's output.
        """
        questions = {key: value for key, value in inputs.items() if key not in (*TARGETS, "query_index")}
        targets = {key: inputs[key] for key in TARGETS}
        self._num_candidates = len(targets["candidates"])
        if self.args.objective == "mixture":
            outputs = model(**questions)
            loss = mixture_info_nce(outputs.query_embeddings, temperature=self.args.temperature, **targets)
        else:
            outputs, first = self._roll_out(model, questions, **targets)
            loss = matched_info_nce(first, temperature=self.args.temperature, **targets)
        return (loss, outputs) if return_outputs else loss

    def _roll_out(
        self, model: nn.Module, questions: dict[str, torch.Tensor], candidates, target_index, target_mask, ignored
    ) -> tuple[Any, torch.Tensor]:
        """The model's output and, of it, as many query vectors as the batch has targets, `(batch, t, dim)`."""
        num_targets = target_index.shape[1]
        if not model.training:  # as at inference: predictions fed back, and the vectors that the metrics will search
            count = max(num_targets, self.model.config.num_query_vectors)
            outputs = model(**questions, num_query_vectors=count)
        else:
            sampled = torch.rand(target_mask.shape, device=target_mask.device)
            outputs = model(
                **questions,
                num_query_vectors=num_targets,
                teacher_vectors=candidates[target_index],
                teacher_mask=(sampled >= self.prediction_probability) & target_mask,
            )
        return outputs, outputs.query_embeddings[:, :num_targets]

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Loss, the query vectors `(batch, m, dim)` and the dataset rows `(batch,)` they belong to."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss, None, None
        count = self.model.config.num_query_vectors
        return loss, outputs.query_embeddings[:, :count].contiguous(), inputs["query_index"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what users never know: how many candidates a query meets, and how often predictions are fed back."""
        if "loss" in logs:
            logs["num_candidates"] = self._num_candidates
            if self.args.objective == "matched":
                logs["prediction_probability"] = self.prediction_probability
        super().log(logs, start_time)
