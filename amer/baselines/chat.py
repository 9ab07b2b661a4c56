"""Chat models that write keywords and rewrites: a local model, or any OpenAI-compatible endpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from amer.extras import import_extra
from amer.machine import chosen_device

KEY_VARIABLE = "OPENAI_API_KEY"
BUSY = (408, 409, 429)  # the client repeats these, and errors from 500 on
SAMPLING = ("temperature", "top_p", "top_k")


class Chat(Protocol):
    """The interface of a chat model for query expansion.

    Attributes:
        name: Name of the model; the cache stores its replies under this name.
    """

    name: str

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """Reply to each prompt in a separate conversation."""


class LocalChat:
    """A local instruction-tuned model, with its chat template and greedy decoding.

    Attributes:
        name: Name of the model.
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
            model_path: A folder, or a name on the Hub.
            name: Name of the model. Default: `model_path`.
            max_new_tokens: Largest number of tokens of a reply.
            batch_size: Number of prompts to answer at a time.
            device: Device of the model. Default: a GPU if there is one.

        Raises:
            ValueError: The model is not a complete language model, or its tokenizer has no chat template.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

        self.name = str(name or model_path)
        self._batch_size = batch_size
        # None: the sampling settings of a model's generation_config.json would only cause warnings.
        self._options = {"max_new_tokens": max_new_tokens, "do_sample": False, **dict.fromkeys(SAMPLING)}
        tokenizer = AutoTokenizer.from_pretrained(model_path, padding_side="left")
        if tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {model_path} has no chat template: choose an instruction-tuned model")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Any: the annotation in transformers lacks the loading info.
        loading: Any = AutoModelForCausalLM.from_pretrained(model_path, output_loading_info=True)
        model, loaded = loading
        if loaded["missing_keys"]:
            missing = ", ".join(sorted(loaded["missing_keys"])[:5])
            raise ValueError(f"{model_path} lacks the weights {missing}: choose a complete language model")
        device = chosen_device(device)
        self._pipeline = pipeline("text-generation", model=model, tokenizer=tokenizer, device=device)

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """As `Chat.reply`."""
        if not prompts:
            return []
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        written = self._pipeline(chats, batch_size=self._batch_size, return_full_text=False, **self._options)
        # transformers annotates a reply as a whole chat, which is true only with return_full_text=True.
        return [reply["generated_text"] for (reply,) in written]  # type: ignore[misc]


class EndpointChat:
    """A model behind an OpenAI-compatible endpoint, at temperature 0; it sends several prompts at a time.

    Attributes:
        name: Name of the model at the endpoint.
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
        """Prepare the client; this sends no request.

        Args:
            base_url: URL of the endpoint, such as `https://api.openai.com/v1` or `http://localhost:8000/v1`.
            model: Name of the model at the endpoint.
            api_key: Key for the endpoint. Default: the environment variable OPENAI_API_KEY, if set.
            max_new_tokens: Largest number of tokens of a reply.
            parallel: Number of requests at a time.
            timeout: Seconds to wait for a reply.
            attempts: Number of requests per prompt if the endpoint is busy, fails or is unreachable. The pauses grow
                to 8 s, unless the endpoint asks for others.

        Raises:
            ImportError: The openai client is not installed.
            ValueError: `base_url` is no URL, or parallel or attempts is below 1.
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
        key = api_key or os.environ.get(KEY_VARIABLE) or "none"  # the client needs a key even if the endpoint does not
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=attempts - 1)

    def reply(self, prompts: Sequence[str]) -> list[str]:
        """Reply to each prompt in a separate conversation.

        Raises:
            OSError: The endpoint refused a request, or answered in none of the attempts.
            ValueError: The answer is not a chat completion.
        """
        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(self._reply, prompts))

    def _reply(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        try:
            answer = self._client.chat.completions.create(
                messages=messages, model=self.name, max_tokens=self._max_new_tokens, temperature=0
            )
            return answer.choices[0].message.content or ""  # an endpoint may send None for an empty reply
        except (self._openai.APIConnectionError, self._openai.APIStatusError) as error:
            status = getattr(error, "status_code", None)  # None: no connection, or a timeout
            busy = status is None or status in BUSY or status >= 500
            what = f"gave no answer in {self._attempts} attempts" if busy else "refused the request"
            raise OSError(f"{self._base_url} {what} for the model {self.name!r}: {error}") from error
        except (self._openai.APIError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ValueError(
                f"{self._base_url} gave an answer that is not a chat completion ({error}): check the URL"
            ) from error
