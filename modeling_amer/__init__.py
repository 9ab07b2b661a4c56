"""The AMER model. A saved model carries exactly these files to the Hub as its remote code."""

from transformers import AutoConfig, AutoModel

from .anchors_amer import WordWeight
from .configuration_amer import AMERConfig
from .encoder_amer import QuestionEncoder, TokenVectors, pad_tokens
from .modeling_amer import AMERModel, AMEROutput
from .parts_amer import Part, part_labels, tokens_within
from .probe_amer import Probe, ProbeReport
from .prompting_amer import as_questions, default_prompt_template, longest_question, tokenize_queries
from .stopping_amer import QueryEmbeddings, blank, emitted

AutoConfig.register("amer", AMERConfig)
AutoModel.register(AMERConfig, AMERModel)
AMERConfig.register_for_auto_class()  # saved models carry their code
AMERModel.register_for_auto_class("AutoModel")

__all__ = [
    "AMERConfig",
    "AMERModel",
    "AMEROutput",
    "Part",
    "Probe",
    "ProbeReport",
    "QueryEmbeddings",
    "QuestionEncoder",
    "TokenVectors",
    "WordWeight",
    "as_questions",
    "blank",
    "default_prompt_template",
    "emitted",
    "longest_question",
    "pad_tokens",
    "part_labels",
    "tokenize_queries",
    "tokens_within",
]
