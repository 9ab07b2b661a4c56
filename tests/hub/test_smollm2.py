"""The real decoder: SmolLM2-135M with LoRA on the Hub, its base beside it, and the same vectors for a stranger."""

from __future__ import annotations

import json

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

PUSH = """
import sys, numpy as np, torch
from modeling_amer import AMERModel

torch.manual_seed(1)
linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
lora = {"r": 8, "lora_alpha": 16, "target_modules": linear}
model = AMERModel.from_base("org/smollm2", document_dim=384, num_query_vectors=5, lora=lora, dtype="bfloat16")
for name, parameter in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.02)
model.push_to_hub("org/amer-smollm2")
np.save(sys.argv[1], model.encode_query(sys.argv[2:]).numpy())
"""
STRANGER = """
import sys, numpy as np, torch
from transformers import AutoModel

def load(**options):
    return AutoModel.from_pretrained("org/amer-smollm2", trust_remote_code=True, **options)

np.save(sys.argv[1], load(verify=True).encode_query(sys.argv[2:]).numpy())
model = load(dtype=torch.float32)
apart = model.encode_query(sys.argv[2:])
merged = model.merge_and_unload().encode_query(sys.argv[2:])
print((apart - merged).abs().max().item())
"""
QUESTIONS = ("bank", "directors of films Eric Newman produced", "Harry Potter release date")


def test_a_stranger_gets_the_vectors_bit_for_bit_from_a_small_repository(hub, smollm2, tmp_path):
    AutoModel.from_pretrained(smollm2, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(tmp_path / "base")
    commit = hub.seed("org/smollm2", tmp_path / "base")
    hub.run(PUSH, tmp_path / "here.npy", *QUESTIONS, project=True)
    stranger = hub.run(STRANGER, tmp_path / "there.npy", *QUESTIONS, HF_HOME=tmp_path / "cold")
    here = np.load(tmp_path / "here.npy")
    assert here.shape == (3, 5, 384) and np.array_equal(here, np.load(tmp_path / "there.npy"))
    assert float(stranger.stdout.splitlines()[-1]) < 1e-5  # LoRA folded in, against LoRA apart
    files = hub.files("org/amer-smollm2")
    assert sum(map(len, files.values())) < 25_000_000
    assert json.loads(files["config.json"])["base_model_revision"] == commit
