"""AMER's model: exactly the files that travel to the Hub as remote code."""

from transformers import AutoConfig, AutoModel

from .configuration_amer import AMERConfig
from .modeling_amer import AMERModel, AMEROutput
from .prompting_amer import default_prompt_template, tokenize_queries

AutoConfig.register("amer", AMERConfig)
AutoModel.register(AMERConfig, AMERModel)

__all__ = ["AMERConfig", "AMERModel", "AMEROutput", "default_prompt_template", "tokenize_queries"]
