"""AMERTrainer: the Hugging Face Trainer with AMER's loss, and its retrieval metrics while training."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress, logging

from amer.files import write_json
from amer.hub import published_card, push_folder
from hub_cards import TrainingClock, training_record, write_model_card
from modeling_amer.publishing_amer import forget_local_base
from modeling_amer.staging_amer import REPLACED, TOKENIZER
from trainer.arguments import AMERTrainingArguments
from trainer.losses import matched_info_nce, mixture_info_nce
from trainer.sampling import prediction_probability

TARGETS = ("candidates", "target_index", "target_mask", "ignored")
# What is published of an output folder: the model and its card, and nothing else that lies there.
PUBLISHED = (*REPLACED, *TOKENIZER, "config.json", "*_amer.py", "README.md", "images/*")
logger = logging.get_logger(__name__)


class AMERTrainer(Trainer):
    """Trains an [`AMERModel`] on batches of an [`AMERCollator`] (paper §4.1).

    The Single-Query baseline is the same trainer with a collator of `max_targets=1`. Evaluation logs `eval_loss`
    with predictions fed back, and what `compute_metrics` (see `RetrievalMetrics`) says of the query vectors.

    Attributes:
        sources: for the card: `dataset` and `store`, what dataset.json and store.json say of the training's.

    Raises:
        ValueError: several GPUs in one process, which would tear a batch apart (use `accelerate launch`); FSDP that
            saves shards; a model to be pushed that stands on a folder of this machine.
    """

    args: AMERTrainingArguments

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError("One process sees several GPUs: start one process for each with `accelerate launch`.")
        if self.is_fsdp_enabled and "FULL" not in str(self.accelerator.state.fsdp_plugin.state_dict_type):
            raise ValueError("FSDP would save shards, base and all: set fsdp_state_dict_type to FULL_STATE_DICT.")
        self.model_accepts_loss_kwargs = False  # else gradient accumulation is scaled by a count we do not use
        self._num_candidates = 0
        self.sources: dict[str, dict[str, Any]] = {}
        self.add_callback(TrainingClock())
        self._hub = HfApi()  # one, for its pushes in the background come one after another
        model = self.accelerator.unwrap_model(self.model)
        model.config.objective, model.config.loss_temperature = self.args.objective, self.args.temperature
        if self.args.push_to_hub:
            model.check_publishable()  # now, and not after the training
            if find_spec("matplotlib") is None:
                raise ImportError("push_to_hub draws the card's pictures: pip install matplotlib.")

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

    # ------------------------------------------------------------------------------------------------- publishing

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """The model with its tokenizer, and the arguments as JSON; the Trainer's own would pickle them."""
        output_dir = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model.save_pretrained(output_dir, state_dict=state_dict, is_main_process=self.args.should_save)
        if self.args.should_save:
            write_json(Path(output_dir) / "training_args.json", json.loads(self.args.to_json_string()))

    def create_model_card(
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: list[str] | None = None,
        report: dict[str, Any] | None = None,
        system: str | None = None,
        existing: str | None = None,
    ) -> None:
        """Write README.md and its pictures into the output folder; what people wrote into it stays.

        Args:
            language: of the questions and documents, for the card's metadata.
            license: of the model, for the card's metadata.
            tags: added to the card's metadata.
            report: what `amer.evaluation.Report.to_dict` gives, for the card's figures.
            system: name of this model in the report.
            existing: a card whose hand-written parts stay; the output folder's by default.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        config = self.accelerator.unwrap_model(self.model).config
        repo_id = self.hub_model_id or self.args.hub_model_id or folder.absolute().name
        path = write_model_card(
            folder, config, repo_id, training_record(self, **self.sources), report, system, existing
        )
        given = {"language": language, "license": license}
        if tags or any(given.values()):
            card = ModelCard.load(path)
            for name, value in given.items():
                if value:
                    setattr(card.data, name, value)
            card.data.tags = list(dict.fromkeys([*(card.data.tags or []), *(tags or [])]))
            card.save(path)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Publish the model with its card in one commit; what else lies in the output folder stays here.

        Args:
            commit_message: of the commit.
            blocking: wait until it is done; else a future is returned.
            token: of the Hub; `args.hub_token` by default.
            revision: branch; `args.hub_revision` by default.
            private: visibility of a repository that is created; `args.hub_private_repo` by default.
            kwargs: see `create_model_card`; the card on the Hub, where there is one, keeps its hand-written parts.

        Raises:
            TypeError: an argument that the card does not know; nothing is saved then.
            ValueError: the adapter's base or the document encoder is a folder, which nobody else has.
        """
        inspect.signature(self.create_model_card).bind(**kwargs)
        self.accelerator.unwrap_model(self.model).check_publishable()
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        branch = revision or self.args.hub_revision
        there = published_card(self.hub_model_id, branch=branch, token=token)
        self.create_model_card(**{"existing": there, **kwargs})
        job = self._push_model(self.args.output_dir, commit_message, token, branch)
        return job.result() if blocking else job

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's model whole; the Trainer's own would push its weights without their code."""
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        message = f"Training in progress, step {self.state.global_step}"
        jobs = [self._push_model(checkpoint_folder, message)]
        if self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = self.args.hub_strategy == HubStrategy.CHECKPOINT
            path = "last-checkpoint" if last else Path(checkpoint_folder).name
            jobs.append(self._push_checkpoint(checkpoint_folder, path, f"{message}, checkpoint"))
        self.push_in_progress = PushInProgress([*(self.push_in_progress.jobs if busy else []), *jobs])

    def _push_model(
        self, folder: str, message: str | None, token: str | None = None, branch: str | None = None
    ) -> Future[CommitInfo]:
        """Push the model in a folder in the background."""
        copy = _copy(folder, PUBLISHED)
        forget_local_base(copy)
        job = self._hub.run_as_future(
            push_folder,
            copy,
            self.hub_model_id,
            branch=branch or self.args.hub_revision,
            commit_message=message,
            token=token or self.args.hub_token,
            delete_patterns=REPLACED,
        )
        job.add_done_callback(lambda done: _pushed(done, copy))
        return job

    def _push_checkpoint(self, folder: str, path_in_repo: str, message: str) -> Future[CommitInfo]:
        """Push all that resuming needs in the background."""
        copy = _copy(folder, ("*",))
        job = self._hub.upload_folder(
            repo_id=self.hub_model_id,
            folder_path=copy,
            path_in_repo=path_in_repo,
            commit_message=message,
            token=self.args.hub_token,
            run_as_future=True,
            revision=self.args.hub_revision,
        )
        job.add_done_callback(lambda done: _pushed(done, copy))
        return job


def _copy(folder: str, patterns: tuple[str, ...]) -> Path:
    """A copy of what is to be pushed: a checkpoint may be deleted before its push is done.

    Raises:
        OSError: there is no model in the folder, so that a push could only delete the one on the Hub.
    """
    source, copy = Path(folder), Path(tempfile.mkdtemp(prefix="amer-push-"))
    try:
        names = (path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        for name in filter_repo_objects(names, allow_patterns=list(patterns), ignore_patterns=["checkpoint-*"]):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)
        if not (copy / "config.json").is_file() or not any(copy.glob("model*.safetensors")):
            raise OSError(f"{folder} holds no whole model (config.json, model.safetensors): nothing is pushed.")
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    return copy


def _pushed(job: Future[CommitInfo], copy: Path) -> None:
    """Remove the copy that was pushed; a push in the background that failed is at least told."""
    shutil.rmtree(copy, ignore_errors=True)
    if not job.cancelled() and job.exception() is not None:
        logger.warning(f"A push to the Hub failed: {job.exception()}")
