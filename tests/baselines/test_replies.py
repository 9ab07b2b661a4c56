"""Replies are asked for once, whatever is killed; a file of something else is left alone."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from amer.baselines import replies
from amer.baselines.replies import replies_to


class Echo:
    """Answers with the prompt in capitals, and counts what it is asked."""

    def __init__(self, name: str = "echo", dies_at: str | None = None) -> None:
        self.name = name
        self.asked: list[str] = []
        self.dies_at = dies_at

    def reply(self, prompts: list[str]) -> list[str]:
        if self.dies_at in prompts:
            os.kill(os.getpid(), signal.SIGKILL)
        self.asked += prompts
        return [prompt.upper() for prompt in prompts]


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "folder" / "replies.jsonl"


PROMPTS = [f"prompt {number}\nwith é\u2028 and \ud800" for number in range(40)]


def test_nothing_is_asked_twice(cache):
    chat = Echo()
    assert replies_to(["b", "a", "b"], chat, cache, False) == ["B", "A", "B"]
    assert chat.asked == ["b", "a"]
    assert replies_to(["c", "a"], chat, cache, False) == ["C", "A"]
    assert chat.asked == ["b", "a", "c"]
    other = Echo("another model")
    replies_to(["a"], other, cache, False)
    assert other.asked == ["a"] and len(cache.read_bytes().splitlines()) == 4


def test_a_killed_run_goes_on_and_leaves_the_same_file(cache, tmp_path):
    child = os.fork()
    if child == 0:
        replies_to(PROMPTS, Echo(dies_at=PROMPTS[37]), cache, False)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    chat = Echo()
    assert replies_to(PROMPTS, chat, cache, False) == [prompt.upper() for prompt in PROMPTS]
    assert chat.asked == PROMPTS[2 * replies.ASKED_AT_ONCE :]
    replies_to(PROMPTS, Echo(), tmp_path / "unbroken", False)
    assert cache.read_bytes() == (tmp_path / "unbroken").read_bytes()


@pytest.mark.parametrize("kept", [1, 5, 10, 30, -1])
def test_a_torn_last_line_is_asked_again(cache, kept):
    replies_to(PROMPTS[:3], Echo(), cache, False)
    whole = cache.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    cache.write_bytes(whole[: -len(last)] + last[:kept])
    chat = Echo()
    replies_to(PROMPTS[:3], chat, cache, False)
    assert chat.asked == PROMPTS[2:3]
    assert cache.read_bytes() == whole


@pytest.mark.parametrize("other", ["not JSON\n", "[1]\n", '{"model": "echo"}\n', "3\n", "a text without an end"])
def test_another_file_is_refused_and_left_as_it_is(cache, other):
    replies_to(["a"], Echo(), cache, False)
    cache.write_text(cache.read_text() + other)
    before = cache.read_bytes()
    with pytest.raises(ValueError, match=r"replies\.jsonl:2 is no reply"):
        replies_to(["a", "b"], Echo(), cache, False)
    assert cache.read_bytes() == before


def test_a_chat_model_that_loses_a_reply_is_refused(cache):
    class Losing(Echo):
        def reply(self, prompts: list[str]) -> list[str]:
            return ["only one"]

    with pytest.raises(ValueError, match="zip"):
        replies_to(["a", "b"], Losing(), cache, False)
    assert cache.read_bytes() == b""


def test_a_second_run_waits_and_finds_the_replies_of_the_first(cache):
    began, go_on = threading.Event(), threading.Event()

    class Slow(Echo):
        def reply(self, prompts: list[str]) -> list[str]:
            began.set()
            assert go_on.wait(10)
            return super().reply(prompts)

    first, second = Slow(), Echo()
    threads = [threading.Thread(target=replies_to, args=(["a"], chat, cache, False)) for chat in (first, second)]
    threads[0].start()
    assert began.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert (first.asked, second.asked) == (["a"], [])
