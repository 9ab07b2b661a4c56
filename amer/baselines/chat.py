"""Chat models that write keywords and rewrites: one on this machine, or any OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Protocol

import torch
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HTTPError  # of httpx or its successor: whichever huggingface_hub speaks

KEY_VARIABLE = "OPENAI_API_KEY"
BUSY = (408, 429)  # as the errors from 500 on: it may answer later


class Chat(Protocol):
    """What query expansion asks of a language model.

    Attributes:
        name: of the model; replies are remembered under it.
    """

    name: str

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """One reply to each prompt, each a conversation of its own."""


class LocalChat:
    """An instruction-tuned model on this machine, asked with its chat template and decoded greedily.

    Attributes:
        name: what the model is called.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        name: str | None = None,
        max_new_tokens: int = 256,
        batch_size: int = 16,
        device: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            model_path: a folder, or a name on the Hub.
            name: what the model is called; `model_path` by default.
            max_new_tokens: where a reply is cut off.
            batch_size: prompts answered at a time.
            device: where it runs; a GPU where there is one by default.

        Raises:
            ValueError: the model is no language model, or its tokenizer has no chat template.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = str(name or model_path)
        self._options = {"max_new_tokens": max_new_tokens, "do_sample": False}
        self._batch_size = batch_size
        self._tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {model_path} has no chat template: choose an instruction-tuned model")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        model, loaded = AutoModelForCausalLM.from_pretrained(model_path, output_loading_info=True)
        if loaded["missing_keys"]:
            missing = ", ".join(sorted(loaded["missing_keys"])[:5])
            raise ValueError(f"{model_path} lacks the weights {missing}: it is not a whole language model")
        self._model = model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """As `Chat.reply`."""
        starts = range(0, len(prompts), self._batch_size)
        return [reply for start in starts for reply in self._reply(prompts[start : start + self._batch_size])]

    def _reply(self, prompts: Sequence[str]) -> list[str]:
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        inputs = self._tokenizer.apply_chat_template(
            conversations, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
        ).to(self._model.device)
        pad = self._tokenizer.pad_token_id
        # None: what a model's own generation_config.json says of sampling would only bring warnings.
        tokens = self._model.generate(
            **inputs, **self._options, pad_token_id=pad, temperature=None, top_p=None, top_k=None
        )
        return self._tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


class EndpointChat:
    """A model behind an OpenAI-compatible endpoint, at temperature 0; several prompts are under way at once.

    Attributes:
        name: of the model, as the endpoint calls it.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        max_new_tokens: int = 256,
        parallel: int = 8,
        timeout: float = 60.0,
        attempts: int = 6,
        back_off: float = 1.0,
    ) -> None:
        """Asks nothing yet.

        Args:
            base_url: such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
            model: its name there.
            api_key: by default what the environment variable OPENAI_API_KEY holds, or none.
            max_new_tokens: where a reply is cut off.
            parallel: requests under way at once.
            timeout: seconds until a request counts as lost.
            attempts: requests made for a prompt while the endpoint is busy, fails or cannot be reached.
            back_off: seconds before the second attempt; before each further one twice as long.

        Raises:
            ValueError: `base_url` is no URL; parallel or attempts below 1.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
        if parallel < 1 or attempts < 1:
            raise ValueError(f"parallel and attempts must be at least 1, got {parallel} and {attempts}")
        # Without a key the client would send the Hub's own token, to whoever runs the endpoint.
        key = api_key or os.environ.get(KEY_VARIABLE) or "none"
        self.name = model
        self._base_url = base_url
        self._client = InferenceClient(base_url=base_url, api_key=key, timeout=timeout)
        self._max_new_tokens = max_new_tokens
        self._parallel = parallel
        self._attempts = attempts
        self._back_off = back_off

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """As `Chat.reply`.

        Raises:
            OSError: the endpoint refused a request, or did not answer in any of the attempts.
            ValueError: it answered with something else than a chat completion.
        """
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self._reply, prompts))

    def _reply(self, prompt: str) -> str:
        for attempt in count(1):
            try:
                return self._complete(prompt)
            except HTTPError as error:
                may_pass = _may_pass(error)
                if not may_pass or attempt == self._attempts:
                    what = f"gave no answer in {attempt} attempts" if may_pass else "refused the request"
                    raise OSError(f"{self._base_url} {what} for the model {self.name!r}: {error}") from error
            time.sleep(self._back_off * 2 ** (attempt - 1))

    def _complete(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        try:
            answer = self._client.chat_completion(
                messages, model=self.name, max_tokens=self._max_new_tokens, temperature=0
            )
            return answer.choices[0].message.content or ""  # None is how an endpoint says nothing
        except HTTPError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(
                f"{self._base_url} answered with something else than a chat completion ({error}): check the URL"
            ) from error


def _may_pass(error: HTTPError) -> bool:
    """Whether the same request may be answered later: no connection, no time, or the server's own fault."""
    response = getattr(error, "response", None)
    return response is None or response.status_code in BUSY or response.status_code >= 500
