"""The workload of training and encoding: the model, its questions and targets, and the least work they need."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from common import DTYPES, Clock, Watches, matmul_rate
from reference import Reference
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.functional import normalize
from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerFast

from amer.offline import SMOLLM2, resolve_model
from modeling_amer import AMERConfig, AMERModel

LLAMA_1B = "llama-1b"
LLAMA_1B_SIZES = {  # the sizes of Llama-3.2-1B
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
LORA_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NUM_WORDS = 256
EXTRA_PASS = "embedding pass"


MODEL_OPTIONS = {
    "model": (SMOLLM2, f"a base model, or {LLAMA_1B} for random weights of that size"),
    "dtype": ("float32", "precision of the decoder's weights", {"choices": DTYPES}),
    "attention": ("sdpa", "attention of the decoder: sdpa, eager or flash_attention_2"),
    "autocast": (False, "compute in bfloat16 by autocast"),
    "lora_r": (64, "rank of LoRA (paper A.6); 0 trains the whole decoder"),
    "lora_dropout": (0.0, "dropout of LoRA; with 0, AMER and the reference give the same loss"),
    "dim": (384, "dimension of the document embeddings"),
    "num_query_vectors": (5, "m"),
    "length": (32, "tokens of a prompted question"),
    "prefix": (22, "tokens of the prompt, which all questions share"),
    "inputs": (
        ["distinct", "prompted"],
        "distinct: questions share no tokens; prompted: they share a prefix",
    ),
}


def ceiling(arguments: argparse.Namespace) -> float:
    """FLOP/s of matrix products in the precision of the computation."""
    return matmul_rate(arguments.device, torch.bfloat16 if arguments.autocast else DTYPES[arguments.dtype])


def autocast(arguments: argparse.Namespace) -> torch.autocast:
    """The autocast context of the computation."""
    return torch.autocast(torch.device(arguments.device).type, torch.bfloat16, enabled=arguments.autocast)


def build_model(arguments: argparse.Namespace) -> AMERModel:
    """Make an untrained AMER model on the base model, with a tokenizer of one token per word."""
    dtype = DTYPES[arguments.dtype]
    if arguments.model == LLAMA_1B:
        with torch.device(arguments.device):
            sizes = LlamaConfig(**LLAMA_1B_SIZES)
            backbone = AutoModel.from_config(sizes, dtype=dtype, attn_implementation=arguments.attention)
    else:
        options = {"dtype": dtype, "attn_implementation": arguments.attention}
        backbone = AutoModel.from_pretrained(resolve_model(arguments.model), **options)
    lora = None
    if arguments.lora_r:
        lora = {"r": arguments.lora_r, "lora_alpha": 16, "lora_dropout": arguments.lora_dropout}
        lora["target_modules"] = LORA_MODULES
    config = AMERConfig(
        text_config=copy.deepcopy(backbone.config),
        document_dim=arguments.dim,
        num_query_vectors=arguments.num_query_vectors,
        prompt_template="{query}",
        lora=lora,
        weights="adapter" if lora else "full",
    )
    return AMERModel(config, backbone, _word_tokenizer()).to(arguments.device)


def make_questions(
    model: AMERModel, count: int, kind: str, arguments: argparse.Namespace, vary: bool = False
) -> list[str]:
    """Draw random questions of one kind, and set the model's prompt accordingly.

    Args:
        count: Number of questions.
        kind: "distinct" or "prompted".
        vary: Vary the number of tokens after the prompt from half to one and a half times the usual number.

    Raises:
        ValueError: The kind is unknown, or the prefix leaves no token for the question.
    """
    if kind not in ("distinct", "prompted"):
        raise ValueError(f"inputs must be distinct or prompted, got {kind!r}.")
    if not 0 < arguments.prefix < arguments.length:
        raise ValueError(f"prefix must lie in 1 ... {arguments.length - 1}, got {arguments.prefix}.")
    prefix = arguments.prefix if kind == "prompted" else 0
    own = arguments.length - prefix
    generator = torch.Generator().manual_seed(arguments.seed)
    spread = own // 2 if vary else 0
    lengths = torch.randint(own - spread, own + spread + 1, (count,), generator=generator).tolist()
    model.config.prompt_template = " ".join([*(["w0"] * prefix), "{query}"])
    return [" ".join(f"w{i}" for i in torch.randint(NUM_WORDS, (length,), generator=generator)) for length in lengths]


def make_targets(batch: int, arguments: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Draw m targets for each of `batch` questions, and as many random negatives (paper §5.2), in the losses' form."""
    m = arguments.num_query_vectors
    generator = torch.Generator().manual_seed(arguments.seed)
    targets = {
        "candidates": normalize(torch.randn(2 * batch * m, arguments.dim, generator=generator), dim=-1),
        "target_index": torch.arange(batch * m).reshape(batch, m),
        "target_mask": torch.ones(batch, m, dtype=torch.bool),
    }
    return {name: value.to(arguments.device) for name, value in targets.items()}


def least_tokens(questions: dict[str, torch.Tensor], num_query_vectors: int) -> int:
    """The number of positions to read: the prefix once, every question's other tokens, and the fed-back vectors."""
    prefix = questions["prefix_ids"].numel() if "prefix_ids" in questions else 0
    return prefix + int(questions["attention_mask"].sum()) + len(questions["input_ids"]) * (num_query_vectors - 1)


def forward_flops(model: AMERModel, tokens: int) -> int:
    """Two FLOPs per weight of the decoder's layers and token; attention over so few tokens is negligible."""
    return 2 * tokens * sum(weight.numel() for weight in _matrices(model))


def training_flops(model: AMERModel, tokens: int) -> int:
    """FLOPs of the forward pass, of the gradients of every layer's input, and of those of the trained weights."""
    trained = sum(weight.numel() for weight in _matrices(model) if weight.requires_grad)
    return 2 * forward_flops(model, tokens) + 2 * tokens * trained


def _matrices(model: AMERModel) -> list[nn.Parameter]:
    """The weights that multiply every token, without the embeddings and the language model's head."""
    return [module.weight for module in model.backbone.modules() if isinstance(module, nn.Linear)]


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of the words w0, w1, ..., so that the number of tokens of a question is exact."""
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(NUM_WORDS)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="w0")


def watch_model(model: AMERModel) -> Watches:
    """The functions of AMER to watch: prefill, decoding, and the training pass over all fed-back vectors."""

    def name(inputs_embeds: torch.Tensor, **_: object) -> str:
        if inputs_embeds.shape[1] >= model.config.num_query_vectors:
            return "prefill"
        return "parallel pass" if torch.is_grad_enabled() else "decode"

    return [(model.backbone, "forward", name)]


def watch_reference(naive: Reference, clock: Clock) -> Watches:
    """The functions of the reference to watch: its passes, their language model heads and the extra pass."""

    def unless_extra(name: str) -> Callable[..., str]:
        return lambda *_, **__: EXTRA_PASS if clock.current == EXTRA_PASS else name

    return [
        (naive, "embed", EXTRA_PASS),
        (naive.model.backbone, "forward", unless_extra("passes")),
        (naive, "lm_head", unless_extra("LM head")),
    ]


def add_ratios(rows: list[dict[str, Any]], count: str, rate: float) -> list[dict[str, Any]]:
    """Add questions per second, their ratio to the reference (the first row), and the share of the ceiling.

    `ratio, plain lookup` is the ratio to a reference that looks up the embeddings of tokens without an extra pass.
    `ratio of FLOPs` is the ratio that would result if every FLOP took the same time.

    Args:
        rows: Rows with `seconds` and `GFLOP`; the first also has `phases`.
        count: Name of the field with a row's number of questions.
        rate: The ceiling in FLOP/s.
    """
    naive = rows[0][count] / rows[0]["seconds"]
    lookup = naive / (1 - rows[0]["phases"][EXTRA_PASS])
    naive_flops = rows[0]["GFLOP"] / rows[0][count]
    for row in rows:
        row["questions/s"] = row[count] / row["seconds"]
        row["ratio"], row["ratio, plain lookup"] = row["questions/s"] / naive, row["questions/s"] / lookup
        row["share of ceiling"] = 1e9 * row["GFLOP"] / row["seconds"] / rate
        row["ratio of FLOPs"] = naive_flops / (row["GFLOP"] / row[count])
    return rows
