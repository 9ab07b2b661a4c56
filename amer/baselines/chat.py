"""Chat models that write keywords and rewrites: one on this machine, or any OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from amer.extras import import_extra
from amer.machine import chosen_device

KEY_VARIABLE = "OPENAI_API_KEY"
BUSY = (408, 409, 429)  # which the client repeats, as it does the errors from 500 on
SAMPLING = ("temperature", "top_p", "top_k")


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
        from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

        self.name = str(name or model_path)
        self._batch_size = batch_size
        # None: what a model's own generation_config.json says of sampling would only bring warnings.
        self._options = {"max_new_tokens": max_new_tokens, "do_sample": False, **dict.fromkeys(SAMPLING)}
        tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
        if tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {model_path} has no chat template: choose an instruction-tuned model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Any: as transformers annotates it, only a model comes back.
        loading: Any = AutoModelForCausalLM.from_pretrained(model_path, output_loading_info=True)
        model, loaded = loading
        if loaded["missing_keys"]:
            missing = ", ".join(sorted(loaded["missing_keys"])[:5])
            raise ValueError(f"{model_path} lacks the weights {missing}: it is not a whole language model")
        device = chosen_device(device)
        self._pipeline = pipeline("text-generation", model=model, tokenizer=tokenizer, device=device)

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """As `Chat.reply`."""
        if not prompts:
            return []
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        written = self._pipeline(chats, batch_size=self._batch_size, return_full_text=False, **self._options)
        # As transformers annotates it, a reply is a whole chat, which it is with return_full_text=True.
        return [reply["generated_text"] for (reply,) in written]  # type: ignore[misc]


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
        attempts: int = 8,
    ) -> None:
        """Asks nothing yet.

        Args:
            base_url: such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
            model: its name there.
            api_key: by default what the environment variable OPENAI_API_KEY holds, or none.
            max_new_tokens: where a reply is cut off.
            parallel: requests under way at once.
            timeout: seconds until a request counts as lost.
            attempts: requests made for a prompt while the endpoint is busy, fails or cannot be reached; the pauses
                between them grow to 8 s, or are those that the endpoint asks for.

        Raises:
            ImportError: the openai client is not installed.
            ValueError: `base_url` is no URL; parallel or attempts below 1.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, got {base_url!r}")
        if parallel < 1 or attempts < 1:
            raise ValueError(f"parallel and attempts must be at least 1, got {parallel} and {attempts}")
        self._openai = import_extra("openai", "paper", "EndpointChat")
        self.name = model
        self._base_url = base_url
        self._max_new_tokens = max_new_tokens
        self._parallel = parallel
        self._attempts = attempts
        key = api_key or os.environ.get(KEY_VARIABLE) or "none"  # the client wants one, whether it is asked for or not
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=attempts - 1)

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """As `Chat.reply`.

        Raises:
            OSError: the endpoint refused a request, or did not answer in any of the attempts.
            ValueError: it answered with something else than a chat completion.
        """
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self._reply, prompts))

    def _reply(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        try:
            answer = self._client.chat.completions.create(
                messages=messages, model=self.name, max_tokens=self._max_new_tokens, temperature=0
            )
            return answer.choices[0].message.content or ""  # None is how an endpoint says nothing
        except (self._openai.APIConnectionError, self._openai.APIStatusError) as error:
            status = getattr(error, "status_code", None)  # none: there was no connection, or no time
            busy = status is None or status in BUSY or status >= 500
            what = f"gave no answer in {self._attempts} attempts" if busy else "refused the request"
            raise OSError(f"{self._base_url} {what} for the model {self.name!r}: {error}") from error
        except (self._openai.APIError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(
                f"{self._base_url} answered with something else than a chat completion ({error}): check the URL"
            ) from error
