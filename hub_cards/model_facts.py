"""The facts about a model that its card states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from amer.corpus.store import complete_encoder
from amer.evaluation.markdown import markdown_table
from amer.hub import public_name
from amer.hub_cards.rendering import code, number, repository, revision

if TYPE_CHECKING:
    from modeling_amer import AMERConfig


def model_facts(config: AMERConfig, repo_id: str, training: dict[str, Any] | None) -> dict[str, Any]:
    """The model's values for the template; the training record gives the number of trained weights."""
    embeds = config.token_vectors and bool(config.document_encoder)  # it computes the encoder's vectors itself
    asks_in_text = config.reads_text or embeds
    encoder = complete_encoder(config.document_encoder) if asks_in_text and config.document_encoder else None
    return {
        "name": repo_id.rpartition("/")[2],
        "repo_id": repo_id,
        "m": config.num_query_vectors,
        "other_m": _another_number(config),
        "dim": config.document_dim,
        "reads_text": config.reads_text,
        "asks_in_text": asks_in_text,
        "anchored": config.anchored,
        "needs_anchors": config.anchored and not embeds,
        "chooses": config.chooses_number,
        "one_pass": config.emission == "one_pass",
        "splits": config.splits_questions,
        "most": config.max_query_vectors,
        "adapter": config.weights == "adapter",
        "mixture": config.objective == "mixture",
        "temperature": config.loss_temperature,
        "base": config.base_model_name_or_path,
        "encoder": encoder and {**encoder, "name": public_name(encoder["name"])},
        "prompt_template": config.prompt_template,
        "model_table": markdown_table(["", ""], _model_rows(config, training), alignment="ll"),
    }


def _model_rows(config: AMERConfig, training: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    base, decoder = config.base_model_name_or_path, config.text_config
    dtype = f", in {str(decoder.dtype).removeprefix('torch.')}" if decoder.dtype else ""
    if base:
        yield "Base model", f"{repository(base)}{revision(config.base_model_revision)}{dtype}"
    else:
        layers = f"{decoder.num_hidden_layers} layers of width {decoder.hidden_size}"
        yield "Decoder", f"{decoder.model_type}, {layers}{dtype}"
    yield from _encoder_rows(config)
    yield "Reads", _reads(config)
    yield "Writes", _writes(config)
    if config.lora or training:
        yield "Trained weights", _weights(config, training or {})
    if config.objective == "mixture":
        loss = "mixture InfoNCE: the vectors together, as an even mixture, explain every target"
        fusion = f"logsumexp of the inner products at temperature {number(config.loss_temperature)}, over the union"
    else:
        loss = "matched InfoNCE: vectors and targets paired by the Hungarian algorithm"
        fusion = "round-robin: the first of each list, then the second of each, duplicates skipped"
    yield "Objective", f"{loss}; temperature {number(config.loss_temperature)}"
    if config.num_query_vectors > 1 or config.chooses_number:
        yield "Fusion of the lists", fusion


def _encoder_rows(config: AMERConfig) -> Iterator[tuple[str, str]]:
    encoder = config.document_encoder
    if not encoder:
        return
    name = repository(encoder["name"]) if config.takes_text else code(public_name(encoder["name"]))
    yield "Document encoder", f"{name}{revision(encoder.get('revision'))}, frozen"
    for key, label in (("document_prompt", "Prompt of documents"), ("query_prompt", "Prompt of questions")):
        if encoder.get(key):
            yield label, code(encoder[key])


def _reads(config: AMERConfig) -> str:
    if config.token_vectors:
        text = "the question's text and " if config.reads_text else ""
        use = {"tokens": ", which its vectors start from", "vector": ", which its vectors start from the mean of"}
        return f"{text}the document encoder's own vectors of the question's tokens{use.get(config.anchor or '', '')}"
    if not config.reads_text:
        return "the question as a vector"
    if config.anchored:
        return "the question's text and the document encoder's own vector of it, which it corrects (anchored)"
    return "the question's text"


def _another_number(config: AMERConfig) -> int | None:
    """A number of query vectors other than the default, as an example; None if the model has no other."""
    most = config.max_query_vectors if config.emission == "one_pass" else 3
    return next((m for m in (2, 3, 1) if m <= most and m != config.num_query_vectors), None)


def _writes(config: AMERConfig) -> str:
    values, most = f"of {config.document_dim} values", config.max_query_vectors
    if config.splits_questions:
        return f"one unit vector {values} for each part of a question, at most {most}"
    if config.stop_score:
        return f"one to {most} unit vectors {values}; its stop score decides how many"
    if config.num_query_vectors == 1:
        return f"one unit vector {values}"
    return f"{config.num_query_vectors} unit vectors {values}"


def _weights(config: AMERConfig, training: dict[str, Any]) -> str:
    """The trained weights. The training record shows whether a model with every weight was merged from LoRA."""
    lora = config.lora or training.get("lora")
    text = "the whole decoder and the two projections"
    if lora:
        modules = lora.get("target_modules") or "the default layers"
        modules = modules if isinstance(modules, str) else ", ".join(modules)
        text = f"LoRA (rank {lora.get('r')}, alpha {lora.get('lora_alpha')}) of {modules}, and the two projections"
    counts = training.get("parameters")
    text += f"; {counts['trained']:,} of {counts['all']:,} parameters" if counts else ""
    return text if config.lora or not lora else f"{text}; LoRA is merged into the decoder here"
