"""Well-known document encoders by name: what they want before a question, and what they need to run.

The prompts are copied from the models' own files on the Hub, as named below; none of these models but MiniLM was ever
loaded here. None of them puts anything before a document.
"""

from __future__ import annotations

from dataclasses import dataclass

from amer.offline import MINILM

WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class KnownEncoder:
    """What is known of an encoder.

    Attributes:
        query_prompt: put before every question.
        needs_remote_code: runs code of its own. Where transformers knows the architecture by name too, it would load
            the weights into its own form of it and say nothing, with another attention.
    """

    query_prompt: str = ""
    needs_remote_code: bool = False


# config_sentence_transformers.json of infly/inf-retriever-v1 has the prompt, its card trust_remote_code. The 1.5b's
# card says the same of the code; its prompt could not be looked up, and is taken to be that of its larger sister.
INF_RETRIEVER = KnownEncoder(f"{WEB_SEARCH}\nQuery: ", needs_remote_code=True)
# `s2p_query` in config_sentence_transformers.json of stella_en_1.5B_v5, and its card, which speaks of both sizes (both
# read in copies of that repository): with a full stop, unlike Inf-Retriever's.
STELLA = KnownEncoder(f"{WEB_SEARCH}.\nQuery: ", needs_remote_code=True)
# README of facebookresearch/contriever: no prompt, mean pooling (which sentence-transformers gives a model that says
# nothing of its own), and the inner product of vectors as they are. Here they are compared at unit length, like all.
CONTRIEVER = KnownEncoder()

KNOWN_ENCODERS = {
    MINILM: KnownEncoder(),
    "facebook/contriever": CONTRIEVER,
    "facebook/contriever-msmarco": CONTRIEVER,
    "NovaSearch/stella_en_400M_v5": STELLA,
    "NovaSearch/stella_en_1.5B_v5": STELLA,
    "infly/inf-retriever-v1-1.5b": INF_RETRIEVER,
    "infly/inf-retriever-v1": INF_RETRIEVER,
}

# Its card: "Instruct: Given a question, retrieve passages that answer the question\nQuery: " before a question,
# nothing before a passage, and `tokenizer.eos_token` behind both, which a store's record of its encoder cannot say.
# That its code fails with newer transformers: github.com/embeddings-benchmark/mteb/issues/3287 and 4334.
REFUSED = {
    "nvidia/NV-Embed-v2": "its code runs with transformers 4.42, not with version 5, which AMER needs, and it wants "
    "an end-of-sequence token behind every text, which a store cannot record: embed with its authors' code, and make "
    "the store from the vectors (amer corpus import)"
}


def known_query_prompt(name: str) -> str:
    """What a known encoder wants before a question; nothing for any other."""
    return KNOWN_ENCODERS[name].query_prompt if name in KNOWN_ENCODERS else ""


def check_usable(name: str, trust_remote_code: bool) -> None:
    """ValueError if an encoder of this name is one that is refused, or needs its own code, which is not trusted."""
    if name in REFUSED:
        raise ValueError(f"{name} cannot be used: {REFUSED[name]}")
    if name in KNOWN_ENCODERS and KNOWN_ENCODERS[name].needs_remote_code and not trust_remote_code:
        raise ValueError(
            f"{name} runs code of its own: read it, pin the revision and allow it with trust_remote_code "
            "(on the command line: --trust-remote-code)"
        )
