"""Known encoders: what must be trusted is refused untrusted, and NV-Embed altogether, before anything is loaded."""

from __future__ import annotations

import pytest

from amer.corpus import DocumentEncoder
from amer.corpus.known_encoders import KNOWN_ENCODERS, REFUSED, check_usable
from amer.offline import MINILM


@pytest.mark.parametrize("name", [name for name, known in KNOWN_ENCODERS.items() if known.needs_remote_code])
def test_code_from_the_hub_runs_only_when_it_is_trusted(name):
    with pytest.raises(ValueError, match=f"{name} runs code of its own.*--trust-remote-code"):
        DocumentEncoder(name)
    check_usable(name, trust_remote_code=True)


def test_an_encoder_that_would_embed_wrongly_is_refused_trusted_or_not():
    assert [*REFUSED] == ["nvidia/NV-Embed-v2"]
    for trust in (False, True):
        with pytest.raises(ValueError, match=r"end-of-sequence token.*amer corpus import"):
            DocumentEncoder.from_identity({"name": "nvidia/NV-Embed-v2"}, trust_remote_code=trust)


def test_others_need_nothing():
    for name in (MINILM, "facebook/contriever-msmarco", "someone/else"):
        check_usable(name, trust_remote_code=False)


def test_the_prompts_of_two_families_differ_by_a_full_stop():
    stella, inf = (
        KNOWN_ENCODERS[name].query_prompt for name in ("NovaSearch/stella_en_400M_v5", "infly/inf-retriever-v1")
    )
    assert inf == "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    assert stella == inf.replace("query\n", "query.\n")
