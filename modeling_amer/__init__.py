"""AMER's model: exactly the files that travel to the Hub as remote code."""

from transformers import AutoConfig, AutoModel

from .configuration_amer import AMERConfig
from .modeling_amer import AMERModel, AMEROutput
from .probe_amer import Probe, ProbeReport
from .prompting_amer import default_prompt_template, tokenize_queries

AutoConfig.register("amer", AMERConfig)
AutoModel.register(AMERConfig, AMERModel)
AMERConfig.register_for_auto_class()  # saved models carry their code
AMERModel.register_for_auto_class("AutoModel")

__all__ = [
    "AMERConfig",
    "AMERModel",
    "AMEROutput",
    "Probe",
    "ProbeReport",
    "default_prompt_template",
    "tokenize_queries",
]
