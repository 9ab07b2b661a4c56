"""Publish the model of a training with its card, during and after the training."""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi, ModelCard
from huggingface_hub.utils import filter_repo_objects
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress, logging

from amer.files import write_json
from amer.hub import published_card, push_folder
from amer.hub_cards import write_model_card
from amer.trainer.arguments import AMERTrainingArguments
from amer.trainer.checkpoints import CheckpointingTrainer
from amer.trainer.record import training_record
from modeling_amer import AMERModel
from modeling_amer.publishing_amer import files_in, forget_local_base, is_public, push_files
from modeling_amer.staging_amer import REPLACED, TOKENIZER

# Files of an output folder to publish: the model and its card, nothing else.
PUBLISHED = (*REPLACED, *TOKENIZER, "config.json", "*_amer.py", "README.md", "images/*", ".eval_results/*")
logger = logging.get_logger(__name__)


class PublishingTrainer(CheckpointingTrainer):
    """The Hugging Face Trainer, changed to save and publish whole AMER models instead of bare weights.

    A repository that it creates is private, unless `args.hub_private_repo` is False or `push_to_hub(public=True)`.

    Attributes:
        sources: Facts for the card: the contents of dataset.json (`dataset`) and of store.json (`store`).

    Raises:
        ImportError: The training will push, and Matplotlib, which draws the card's pictures, is not installed.
        ValueError: The training will push, and the model depends on a folder of this machine.
    """

    args: AMERTrainingArguments
    model: AMERModel
    # Both are None at first; mypy takes that for their type in transformers.
    hub_model_id: str | None  # type: ignore[assignment]
    push_in_progress: PushInProgress | None  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sources: dict[str, dict[str, Any]] = {}
        self._hub = HfApi()  # a single client runs its background pushes one after another
        if self.args.push_to_hub:
            self.accelerator.unwrap_model(self.model).check_publishable()  # fail now, not after the training
            if find_spec("matplotlib") is None:
                raise ImportError("push_to_hub needs Matplotlib for the card's pictures: pip install matplotlib.")

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Create the repository `args.hub_model_id` if there is none.

        Args:
            token: Token for the Hub. Default: `args.hub_token`.
            private: Whether the repository is private. Default: `args.hub_private_repo`, and private if that is None
                (transformers would use the default of the account or organisation).
        """
        if not self.is_world_process_zero():
            return
        name = self.args.hub_model_id or Path(self.args.output_dir).absolute().name
        public = is_public(False, self.args.hub_private_repo if private is None else private)
        url = HfApi().create_repo(name, token=token or self.args.hub_token, private=not public, exist_ok=True)
        self.hub_model_id = url.repo_id
        self.push_in_progress = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save the model with its tokenizer, and the arguments as JSON (the Trainer itself would pickle them)."""
        output_dir = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        model.save_pretrained(output_dir, state_dict=state_dict, is_main_process=self.args.should_save)
        if self.args.should_save:
            arguments = {**json.loads(self.args.to_json_string()), "save_total_limit": self.save_total_limit}
            write_json(Path(output_dir) / "training_args.json", arguments)

    @property
    def _repo_id(self) -> str:
        """The repository to push to.

        Raises:
            ValueError: `init_hf_repo` has not created it yet.
        """
        if self.hub_model_id is None:
            raise ValueError("There is no repository to push to yet: call push_to_hub, or init_hf_repo.")
        return self.hub_model_id

    def create_model_card(  # type: ignore[override]  # our card has a report, and its base and tasks are known
        self,
        language: str | list[str] | None = None,
        license: str | None = None,
        tags: list[str] | None = None,
        report: dict[str, Any] | None = None,
        system: str | None = None,
        existing: str | None = None,
    ) -> None:
        """Write README.md and its pictures into the output folder; text that people added is kept.

        Args:
            language: Language of the questions and documents, for the card's metadata.
            license: Licence of the model, for the card's metadata.
            tags: Tags to add to the card's metadata.
            report: Output of `amer.evaluation.Report.to_dict`, for the card's figures.
            system: Name of this model in the report.
            existing: Card whose hand-written parts are kept. Default: the one in the output folder.
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

    def push_to_hub(  # type: ignore[override]  # `public` is ours; not blocking, it gives what the Trainer's own gives
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        *,
        public: bool = False,
        **kwargs: Any,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """Publish the model with its card in one commit. Other files of the output folder are not pushed.

        Args:
            commit_message: Commit message.
            blocking: Wait for the push; False returns a future.
            token: Token for the Hub. Default: `args.hub_token`.
            revision: Branch. Default: `args.hub_revision`.
            private: transformers' opposite of `public`. Default: `args.hub_private_repo`, and private if that is None.
            public: Make a newly created repository public.
            kwargs: Arguments of `create_model_card`. A card that is already on the Hub keeps its hand-written parts.

        Raises:
            TypeError: An unknown argument for the card; nothing is saved.
            ValueError: The adapter's base or the document encoder is a folder, which others cannot load, or both
                `public` and `private` are True.
        """
        inspect.signature(self.create_model_card).bind(**kwargs)
        if is_public(public, private):
            private = False
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
        there = published_card(self._repo_id, branch=branch, token=token)
        self.create_model_card(**{"existing": there, **kwargs})
        job = self._push_model(self.args.output_dir, commit_message, token, branch)
        return job.result() if blocking else job

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint's complete model (the Trainer itself would push the weights without their code)."""
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
        earlier: Any = self.push_in_progress.jobs if self.push_in_progress is not None and busy else []
        # transformers also passes a list of jobs, although its annotation says otherwise.
        self.push_in_progress = PushInProgress([*earlier, *jobs])  # type: ignore[arg-type]

    def _push_model(
        self, folder: str, message: str | None, token: str | None = None, branch: str | None = None
    ) -> Future[CommitInfo]:
        """Push the model in a folder in the background."""
        copy = _copy(folder, PUBLISHED)
        forget_local_base(copy)
        return self._push_in_background(
            push_folder, copy, copy, token, branch, commit_message=message, delete_patterns=REPLACED
        )

    def _push_checkpoint(self, folder: str, path_in_repo: str, message: str) -> Future[CommitInfo]:
        """Push, in the background, all files that resuming needs."""
        copy = _copy(folder, ("*",))
        files = {f"{path_in_repo}/{name}": file for name, file in files_in(copy).items()}
        return self._push_in_background(
            push_files, files, copy, commit_message=message, replaced=[f"{path_in_repo}/*"]
        )

    def _push_in_background(
        self,
        push: Callable[..., CommitInfo],
        what: Any,
        copy: Path,
        token: str | None = None,
        branch: str | None = None,
        **options: Any,
    ) -> Future[CommitInfo]:
        """Push a folder or files in the background, then remove their temporary copy."""
        options |= {"branch": branch or self.args.hub_revision, "token": token or self.args.hub_token}
        job = self._hub.run_as_future(push, what, self._repo_id, **options)
        job.add_done_callback(lambda done: _pushed(done, copy))
        return job


def _copy(folder: str, patterns: tuple[str, ...]) -> Path:
    """Copy the files to push, because a checkpoint may be deleted before its push is done.

    Raises:
        OSError: The folder holds no model; a push could only delete the one on the Hub.
    """
    source, copy = Path(folder), Path(tempfile.mkdtemp(prefix="amer-push-"))
    try:
        names = (path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        for name in filter_repo_objects(names, allow_patterns=list(patterns), ignore_patterns=["checkpoint-*"]):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, copy / name)
        if not (copy / "config.json").is_file() or not any(copy.glob("model*.safetensors")):
            raise OSError(f"{folder} holds no complete model (config.json, model.safetensors): nothing was pushed.")
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    return copy


def _pushed(job: Future[CommitInfo], copy: Path) -> None:
    """Remove the pushed copy, and log a failure of the background push."""
    shutil.rmtree(copy, ignore_errors=True)
    if not job.cancelled() and job.exception() is not None:
        logger.warning(f"A push to the Hub failed: {job.exception()}")
