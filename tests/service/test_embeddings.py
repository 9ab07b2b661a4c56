"""`/v1/embeddings`, asked with OpenAI's own client."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from amer.service import Settings, create_app
from tests.conftest import DIM
from tests.service.conftest import FakeSearcher, client, running

openai = pytest.importorskip("openai", reason="needs the extra `paper`")
TEXTS = ["what is a bank?", "sort a list, and plot it", "a"]


@pytest.fixture(scope="module")
def address(mini_searcher):
    with running(create_app(mini_searcher, api_key="secret")) as address:
        yield address


@pytest.fixture(scope="module")
def api(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)


def post(address: str, **body):
    headers = {"Authorization": "Bearer secret"}
    return client.post(f"{address}/v1/embeddings", json={"model": "amer", "input": "a", **body}, headers=headers)


@pytest.mark.parametrize("encoding_format", [openai.omit, "float", "base64"])
def test_a_text_has_one_vector_unless_more_are_asked_for(api, mini_searcher, encoding_format):
    answer = api.embeddings.create(model="amer", input=TEXTS, encoding_format=encoding_format)
    expected = mini_searcher.encode(TEXTS, 1)[:, 0]
    given = [one.embedding for one in answer.data]
    if encoding_format == "base64":
        given = [np.frombuffer(base64.b64decode(one), "<f4") for one in given]
    np.testing.assert_allclose(given, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(given, axis=1), 1, atol=1e-5)
    assert [one.index for one in answer.data] == [0, 1, 2] and answer.object == "list" and answer.model == "amer"


def test_one_text_needs_no_list(api, mini_searcher):
    answer = api.embeddings.create(model="amer", input=TEXTS[0], dimensions=DIM, user="somebody")
    np.testing.assert_allclose(answer.data[0].embedding, mini_searcher.encode(TEXTS[:1], 1)[0, 0], atol=1e-6)


def test_each_vector_says_whose_it_is_and_which(api, mini_searcher):
    answer = api.embeddings.create(model="amer", input=TEXTS, extra_body={"n_vectors": 3})
    assert [(one.index, one.vector) for one in answer.data] == [
        (text, number) for text in range(3) for number in range(3)
    ]
    given = np.array([one.embedding for one in answer.data]).reshape(3, 3, DIM)
    np.testing.assert_allclose(given, mini_searcher.encode(TEXTS, 3), atol=1e-6)


def test_numbers_are_those_of_float32_to_the_last_bit(address, mini_searcher):
    given = post(address, input=TEXTS, encoding_format="float").json()["data"]
    binary = post(address, input=TEXTS, encoding_format="base64").json()["data"]
    for one, other in zip(given, binary, strict=True):
        exact = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        np.testing.assert_array_equal(np.array(one["embedding"], dtype=np.float32), exact)


def test_tokens_are_counted(api, mini_searcher):
    tokenizer = mini_searcher.model.document_encoder.tokenizer
    answer = api.embeddings.create(model="amer", input=TEXTS)
    expected = sum(len(tokenizer.tokenize(text)) for text in TEXTS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == expected


def test_vectors_that_the_model_did_not_emit_are_left_out(mini_searcher, monkeypatch):
    encode = mini_searcher.encode
    blank = np.array([[1, 0, 0], [1, 1, 0]], dtype=np.float32)[:, :, None]
    monkeypatch.setattr(mini_searcher, "encode", lambda *arguments: encode(*arguments) * blank)
    with running(create_app(mini_searcher)) as address:
        data = post(address, input=TEXTS[:2], n_vectors=3).json()["data"]
    assert [(one["index"], one["vector"]) for one in data] == [(0, 0), (1, 0), (1, 1)]


def test_a_model_that_chooses_gives_as_many_as_it_finds(mini_searcher, monkeypatch):
    monkeypatch.setattr(type(mini_searcher.model.config), "chooses_number", True)
    asked = []
    encode = mini_searcher.encode
    monkeypatch.setattr(mini_searcher, "encode", lambda texts, m: asked.append(m) or encode(texts, 2))
    with running(create_app(mini_searcher)) as address:
        data = post(address, n_vectors="auto").json()["data"]
    assert asked == ["auto"] and [one["vector"] for one in data] == [0, 1]


def test_a_model_of_words_counts_its_own_tokens(searcher):
    with running(create_app(searcher)) as address:
        name = client.get(f"{address}/health").json()["model"]
        answer = post(address, model=name, input=TEXTS[0]).json()
    expected = len(searcher.model.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"])
    assert answer["usage"]["prompt_tokens"] == expected and len(answer["data"]) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "text-embedding-3-small"}, "model"),
        ({"input": []}, "input"),
        ({"input": " "}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": ["a"] * 65}, "input"),
        ({"dimensions": DIM + 1}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"n_vectors": 0}, "n_vectors"),
        ({"n_vectors": 33}, "n_vectors"),
        ({"n_vectors": "auto"}, "n_vectors"),
        ({"input": ["a"] * 64, "n_vectors": 32}, "n_vectors"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(address, change, named):
    refused = post(address, **change)
    assert refused.status_code == 422 and named in refused.json()["detail"]


def test_the_client_is_told_of_a_wrong_key_and_of_a_wrong_model(address, api):
    with pytest.raises(openai.AuthenticationError, match="X-API-Key"):
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).embeddings.create(
            model="amer", input="a"
        )
    with pytest.raises(openai.UnprocessableEntityError, match="Input should be 'amer'"):
        api.embeddings.create(model="another", input="a")


def test_it_waits_in_the_queue_of_all(store):
    fake = FakeSearcher(store)
    fake.encode = lambda texts, m: fake.search(texts)
    fake.released.clear()
    with running(create_app(fake, Settings(timeout_seconds=1))) as address:
        assert post(address, model="org/fake").status_code == 504
        fake.released.set()
