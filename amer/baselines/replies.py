"""A cache of a chat model's replies in a JSON Lines file, so that no prompt is asked twice."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from amer.baselines.chat import Chat

ASKED_AT_ONCE = 16  # prompts between two writes; an interruption loses at most these
BEGINNING = b'{"model": '
FIELDS = ("model", "prompt", "reply")


def replies_to(
    prompts: Sequence[str], chat: Chat, cache_path: str | os.PathLike[str], show_progress_bar: bool = True
) -> list[str]:
    """Return the chat model's reply to each prompt, from the cache or from the model.

    Replies are written as they arrive, so an interrupted run resumes when called again. Another process with the same
    file waits until this one is done.

    Args:
        prompts: The prompts; equal prompts are asked once.
        chat: The chat model. The cache key of a reply is the model's name and the prompt.
        cache_path: A JSON Lines file: new, or left by an earlier call.
        show_progress_bar: Show how many of the prompts are answered.

    Raises:
        ValueError: The file holds anything but replies; the message names the line.
    """
    path = Path(cache_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        with suppress(OSError):  # the file system may have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        known = _read(file, path)
        distinct = dict.fromkeys(prompts)
        missing = [prompt for prompt in distinct if (chat.name, prompt) not in known]
        answered = len(distinct) - len(missing)
        with tqdm(
            total=len(distinct), initial=answered, desc=chat.name, unit="prompt", disable=not show_progress_bar
        ) as progress:
            for start in range(0, len(missing), ASKED_AT_ONCE):
                asked = missing[start : start + ASKED_AT_ONCE]
                replies = dict(zip(asked, chat.reply(asked), strict=True))
                for prompt, reply in replies.items():
                    entry = dict(zip(FIELDS, (chat.name, prompt, reply), strict=True))
                    file.write((json.dumps(entry) + "\n").encode())
                file.flush()
                known.update({(chat.name, prompt): reply for prompt, reply in replies.items()})
                progress.update(len(asked))
    return [known[chat.name, prompt] for prompt in prompts]


def _read(file: BinaryIO, path: Path) -> dict[tuple[str, str], str]:
    """Read (model, prompt) -> reply; remove an incomplete last line, left by an interruption, from the file."""
    file.seek(0)
    *lines, torn = file.read().split(b"\n")
    known = dict(_entry(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))
    if torn:
        if not torn.startswith(BEGINNING[: len(torn)]):
            raise _foreign(f"{path}:{len(lines) + 1}")
        file.truncate(file.tell() - len(torn))
    return known


def _entry(line: bytes, where: str) -> tuple[tuple[str, str], str]:
    try:
        model, prompt, reply = (json.loads(line)[field] for field in FIELDS)
    except (ValueError, TypeError, KeyError) as error:
        raise _foreign(where) from error
    return (model, prompt), reply


def _foreign(where: str) -> ValueError:
    return ValueError(f"{where} is no reply of a chat model ({', '.join(FIELDS)}): choose another file for replies")
