"""Chat models: a local one answers a batch as it answers alone; an endpoint's faults are survived or told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from amer.baselines.chat import EndpointChat, LocalChat

Answer = tuple[int, bytes]


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint on loopback; `answer` gets a request's body and how many came before it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.answer: Callable[[dict, int], Answer] = lambda body, before: completion(body["messages"][0]["content"])
        self.requests: list[tuple[str, dict, dict]] = []
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that gave up are expected."""


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            before = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers), body))
        status, content = self.server.answer(body, before)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Nothing to say."""


def completion(content: str | None) -> Answer:
    message = {"role": "assistant", "content": content}
    return 200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_replies_come_in_the_order_of_the_prompts_from_several_requests_at_once(endpoint):
    together = threading.Barrier(4)

    def answer(body: dict, before: int) -> Answer:
        together.wait(timeout=10)
        content = body["messages"][0]["content"]
        time.sleep(0.02 * (7 - int(content)))  # the last come first
        return completion(f"reply {content}")

    endpoint.answer = answer
    chat = EndpointChat(endpoint.url, "gpt-x", api_key="secret", max_new_tokens=9, parallel=4)
    assert chat.reply([str(number) for number in range(8)]) == [f"reply {number}" for number in range(8)]
    path, headers, body = endpoint.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("gpt-x", 0, 9)
    assert body["messages"][0]["role"] == "user" and chat.name == "gpt-x"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_busy_endpoint_is_asked_again(endpoint, status):
    endpoint.answer = lambda body, before: (status, b"{}") if before < 2 else completion("late")
    assert EndpointChat(endpoint.url, "gpt-x", attempts=3).reply(["p"]) == ["late"]
    assert len(endpoint.requests) == 3


def test_an_endpoint_that_stays_busy_is_given_up(endpoint):
    endpoint.answer = lambda body, before: (500, b"out of memory")
    with pytest.raises(OSError, match=r"127\.0\.0\.1.* gave no answer in 4 attempts for the model 'gpt-x': .*500"):
        EndpointChat(endpoint.url, "gpt-x", attempts=4).reply(["p"])
    assert len(endpoint.requests) == 4


def test_a_slow_endpoint_and_one_that_is_not_there_count_as_busy(endpoint):
    def answer(body: dict, before: int) -> Answer:
        time.sleep(0.5 if before == 0 else 0)
        return completion("soon")

    endpoint.answer = answer
    assert EndpointChat(endpoint.url, "gpt-x", timeout=0.2).reply(["p"]) == ["soon"]
    assert len(endpoint.requests) == 2
    with pytest.raises(OSError, match="gave no answer in 2 attempts"):
        EndpointChat("http://127.0.0.1:9/v1", "gpt-x", attempts=2).reply(["p"])


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_repeated(endpoint, status):
    endpoint.answer = lambda body, before: (status, b'{"error": "no such key"}')
    with pytest.raises(OSError, match=rf"refused the request .*'gpt-x': [\s\S]*({status}|Bad request)"):
        EndpointChat(endpoint.url, "gpt-x").reply(["p"])
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "body", [b'{"choices": [{"mess', b"<html>", b"[]", b'{"error": "x"}', b'{"choices": []}', b'{"choices": [{}]}']
)
def test_what_is_no_chat_completion_is_told(endpoint, body):
    endpoint.answer = lambda *_: (200, body)
    with pytest.raises(ValueError, match="not a chat completion"):
        EndpointChat(endpoint.url, "gpt-x").reply(["p"])


def test_an_answer_of_nothing_is_an_empty_reply(endpoint):
    endpoint.answer = lambda *_: completion(None)
    assert EndpointChat(endpoint.url, "gpt-x").reply(["p"]) == [""]


def test_the_hubs_token_is_never_sent(endpoint, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_private")
    EndpointChat(endpoint.url, "gpt-x").reply(["p"])
    monkeypatch.setenv("OPENAI_API_KEY", "meant")
    EndpointChat(endpoint.url, "gpt-x").reply(["p"])
    sent = [headers["authorization"] for _, headers, _ in endpoint.requests]
    assert "hf_private" not in sent[0] and sent[1] == "Bearer meant"


@pytest.mark.parametrize("options", [{"base_url": "gpt-x"}, {"parallel": 0}, {"attempts": 0}])
def test_bad_options_of_an_endpoint_are_refused(options):
    with pytest.raises(ValueError, match=r"base_url|parallel"):
        EndpointChat(**{"base_url": "http://localhost", "model": "gpt-x", **options})


@pytest.fixture(scope="module")
def decoder(llama, tmp_path_factory) -> str:
    """The tiny Llama with a head, whose generation settings ask for sampling."""
    folder = tmp_path_factory.mktemp("decoder")
    model = AutoModelForCausalLM.from_pretrained(llama)
    model.generation_config.update(do_sample=True, temperature=0.7, top_p=0.9)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    return str(folder)


def test_a_batch_is_answered_as_each_prompt_alone(decoder):
    prompts = ["a", "a much longer prompt", "", "bank"]
    together = LocalChat(decoder, name="tiny", max_new_tokens=8, batch_size=3)
    replies = together.reply(prompts)
    assert together.name == "tiny" and LocalChat(decoder).name == decoder
    assert replies == [together.reply([prompt])[0] for prompt in prompts]
    assert len({*replies}) > 1 and together.reply([]) == []


def test_a_local_model_reads_the_chat_template_and_is_cut_off(decoder):
    tokenizer, model = AutoTokenizer.from_pretrained(decoder), AutoModelForCausalLM.from_pretrained(decoder)
    inputs = tokenizer("<bos><user>bank <assistant>", return_tensors="pt", add_special_tokens=False)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=5, pad_token_id=1)
    expected = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert LocalChat(decoder, max_new_tokens=5).reply(["bank"]) == [expected]


def test_what_cannot_chat_is_refused(llama, tmp_path):
    with pytest.raises(ValueError, match=r"lacks the weights lm_head\.weight"):
        LocalChat(llama)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="chat template"):
        LocalChat(tmp_path)
