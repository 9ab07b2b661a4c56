"""Well-known document encoders: their query prompts, and whether they need code of their own.

The prompts are copied from the models' files on the Hub, named below. Only MiniLM was ever loaded in this project.
None of these models has a document prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from amer.offline import MINILM

WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class KnownEncoder:
    """Facts about an encoder.

    Attributes:
        query_prompt: Prefix of every question.
        needs_remote_code: Whether the encoder needs the code in its repository. Without it, transformers may silently
            load the weights into its own version of the architecture, which has another attention.
    """

    query_prompt: str = ""
    needs_remote_code: bool = False


# The prompt is from config_sentence_transformers.json of infly/inf-retriever-v1, and its card asks for
# trust_remote_code. The card of the 1.5b does too. Its prompt could not be checked: it is assumed to be the same.
INF_RETRIEVER = KnownEncoder(f"{WEB_SEARCH}\nQuery: ", needs_remote_code=True)
# From `s2p_query` in config_sentence_transformers.json of stella_en_1.5B_v5 and from its card, which covers both sizes
# (both were read in copies of that repository). Unlike Inf-Retriever's prompt, it has a full stop.
STELLA = KnownEncoder(f"{WEB_SEARCH}.\nQuery: ", needs_remote_code=True)
# README of facebookresearch/contriever: no prompt, mean pooling (the default of sentence-transformers), and inner
# products of unnormalised vectors. AMER normalises them, like all vectors.
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

# Its card: prefix "Instruct: Given a question, retrieve passages that answer the question\nQuery: " for a question,
# no prefix for a passage, and `tokenizer.eos_token` after both, which a store cannot record. Its code fails with newer
# transformers: see github.com/embeddings-benchmark/mteb/issues/3287 and 4334.
REFUSED = {
    "nvidia/NV-Embed-v2": "its code runs with transformers 4.42, but AMER needs version 5, and it needs an "
    "end-of-sequence token after every text, which a store cannot record: embed with its authors' code, and make the "
    "store from the vectors (amer corpus import)"
}


def known_query_prompt(name: str) -> str:
    """Return the query prompt of a known encoder, or the empty string for any other."""
    return KNOWN_ENCODERS[name].query_prompt if name in KNOWN_ENCODERS else ""


def check_usable(name: str, trust_remote_code: bool) -> None:
    """Raise ValueError if the encoder cannot be used, or needs remote code that is not trusted."""
    if name in REFUSED:
        raise ValueError(f"{name} cannot be used: {REFUSED[name]}")
    if name in KNOWN_ENCODERS and KNOWN_ENCODERS[name].needs_remote_code and not trust_remote_code:
        raise ValueError(
            f"{name} runs code of its own: read the code, pin the revision and allow it with trust_remote_code "
            "(on the command line: --trust-remote-code)"
        )
