"""A model on the Hub: pushed by the project, loaded by people who do not have it, over a real connection."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tests.conftest import save_tiny_base
from tests.hub.conftest import LoopbackHub, loopback_hub

pytestmark = pytest.mark.server

PUSH = """
import sys, numpy as np, torch
from modeling_amer import AMERModel

torch.manual_seed(1)
lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
model = AMERModel.from_base("org/base", document_dim=8, num_query_vectors=3, lora=lora)
for name, parameter in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.2)
model.push_to_hub("org/amer")
np.save(sys.argv[1], model.encode_query(["bank", "a longer question"]).numpy())
"""
LOAD = """
import json, sys, numpy as np
from transformers import AutoModel

options = json.loads(sys.argv[2])
model = AutoModel.from_pretrained("org/amer", trust_remote_code=True, verify=True, **options)
np.save(sys.argv[1], model.encode_query(["bank", "a longer question"]).numpy())
facts = {"module": type(model).__module__, "name": type(model).__name__, "can_generate": model.can_generate(),
         "bases": [cls.__name__ for cls in type(model).__mro__], "pin": model.config.base_model_revision,
         "dtype": str(model.backbone.dtype), "attention": model.backbone.config._attn_implementation}
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Published:
    """A Hub with `org/base` and `org/amer` on it, and the vectors that were seen where it was pushed from."""

    hub: LoopbackHub
    vectors: np.ndarray
    base_commit: str

    def load(self, folder, **options) -> tuple[dict, np.ndarray]:
        """Load in a fresh process without the project; facts and vectors."""
        environment = options.pop("environment", {})
        done = self.hub.run(LOAD, folder / "vectors.npy", json.dumps(options), **environment)
        return json.loads(done.stdout.splitlines()[-1]), np.load(folder / "vectors.npy")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Published:
    folder = tmp_path_factory.mktemp("published")
    save_tiny_base(folder / "base", "llama")
    with loopback_hub(tmp_path_factory.mktemp("hub")) as hub:
        commit = hub.seed("org/base", folder / "base")
        hub.run(PUSH, folder / "here.npy", project=True)
        yield Published(hub, np.load(folder / "here.npy"), commit)


@pytest.fixture(scope="module")
def stranger(published, tmp_path_factory):
    """Facts and vectors of a first load with a cold cache, and the folder of what is cached then."""
    folder = tmp_path_factory.mktemp("stranger")
    return *published.load(folder, environment={"HF_HOME": folder / "cold"}), folder / "cold"


def test_strangers_get_bit_identical_vectors(published, stranger):
    assert np.array_equal(stranger[1], published.vectors) and stranger[0]["attention"] == "sdpa"


def test_a_repository_loads_as_amer_and_not_as_its_base(published, stranger):
    assert stranger[0]["name"] == "AMERModel" and "adapter_config.json" not in published.hub.files("org/amer")


def test_the_class_is_not_rebuilt_as_one_that_generates_text(stranger):
    assert not stranger[0]["can_generate"] and "GenerationMixin" not in stranger[0]["bases"]


def test_the_code_of_the_repository_is_what_runs(stranger):
    assert stranger[0]["module"].startswith("transformers_modules.org.amer.")


def test_what_is_cached_loads_without_a_network(published, stranger, tmp_path):
    offline = {"HF_HOME": stranger[2], "HF_HUB_OFFLINE": 1, "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert np.array_equal(published.load(tmp_path, environment=offline)[1], published.vectors)


def test_the_repository_holds_code_and_adapter_and_no_base(published):
    files = published.hub.files("org/amer")
    assert {"config.json", "model.safetensors", "modeling_amer.py", "configuration_amer.py", "probe.json"} < set(files)
    assert not any(name.startswith("adapter/") for name in files)
    assert len(files["model.safetensors"]) < len(published.hub.files("org/base")["model.safetensors"])
    assert not any(name.endswith((".bin", ".pt", ".pth", ".pkl")) for name in files)
    assert published.hub.repo("org/amer").private
    assert json.loads(files["config.json"])["base_model_revision"] == published.base_commit


def test_the_pin_holds_when_the_base_moves(published, tmp_path):
    other = save_tiny_base(tmp_path / "other", "qwen3")
    moved = published.hub.seed("org/base", {"README.md": b"moved", "config.json": b"{}"})
    assert moved != published.base_commit and other
    facts, vectors = published.load(tmp_path, environment={"HF_HOME": tmp_path / "cold"})
    assert facts["pin"] == published.base_commit and np.array_equal(vectors, published.vectors)


def test_a_revision_of_the_adapter_is_not_asked_of_the_base(published, tmp_path):
    published.hub.run("import huggingface_hub as h; h.create_tag('org/amer', tag='v1')")
    assert "v1" not in published.hub.repo("org/base").tags
    _, vectors = published.load(tmp_path, revision="v1", environment={"HF_HOME": tmp_path / "cold"})
    assert np.array_equal(vectors, published.vectors)


def test_another_base_at_load_is_not_asked_for_the_pin_but_pinned_itself(published, tmp_path):
    mirrored = published.hub.seed("other/mirror", published.hub.files("org/base", published.base_commit))
    facts, vectors = published.load(tmp_path, base_model_name_or_path="other/mirror", attn_implementation="eager")
    assert facts["pin"] == mirrored and facts["attention"] == "eager"
    np.testing.assert_allclose(vectors, published.vectors, atol=1e-5)


def test_the_tokenizer_loads_without_a_prompt(published):
    published.hub.run(
        """
        from transformers import AutoTokenizer
        for trust in (True, False):
            assert AutoTokenizer.from_pretrained("org/amer", trust_remote_code=trust)("bank")["input_ids"]
        """
    )


def test_a_local_folder_loads_with_its_own_config_class(published, tmp_path):
    published.hub.run(
        """
        import sys
        import huggingface_hub
        from transformers import AutoConfig, AutoModel
        folder = huggingface_hub.snapshot_download("org/amer", local_dir=sys.argv[1])
        config = AutoConfig.from_pretrained(folder, trust_remote_code=True, num_query_vectors=2)
        model = AutoModel.from_pretrained(folder, config=config, trust_remote_code=True)
        assert model.encode_query("bank").shape == (2, 8)
        # What a stranger saves is whole again: the code travels on.
        model.save_pretrained(sys.argv[2])
        again = AutoModel.from_pretrained(sys.argv[2], trust_remote_code=True, verify=True)
        assert again.encode_query("bank").equal(model.encode_query("bank"))
        """,
        tmp_path / "folder",
        tmp_path / "saved",
    )
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {name for name in published.hub.files("org/amer") if name.endswith(".py")} <= names


def test_an_export_for_peft_is_published_where_it_is_asked_for(published, tmp_path):
    published.hub.run(
        """
        from modeling_amer import AMERModel
        AMERModel.from_pretrained("org/amer").push_to_hub("tester/with-peft", export_peft=True)
        """,
        project=True,
    )
    files = published.hub.files("tester/with-peft")
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} <= set(files)
    published.hub.run(
        """
        from peft import PeftModel
        from transformers import AutoModel
        model = AutoModel.from_pretrained("tester/with-peft", trust_remote_code=True, verify=True)
        assert type(model).__name__ == "AMERModel"
        base = AutoModel.from_pretrained("org/base", revision=model.config.base_model_revision)
        theirs = PeftModel.from_pretrained(base, "tester/with-peft", subfolder="adapter")
        ids = model.tokenizer("bank", return_tensors="pt")
        assert theirs(**ids).last_hidden_state.equal(model.backbone(**ids).last_hidden_state)
        """
    )


def test_a_new_repository_is_private_unless_somebody_says_otherwise(published):
    published.hub.run(
        """
        from modeling_amer import AMERModel
        model = AMERModel.from_pretrained("org/amer")
        model.push_to_hub("tester/default")
        model.push_to_hub("tester/public", public=True)
        model.push_to_hub("tester/as-in-transformers", private=False)
        model.push_to_hub("tester/private", private=True)
        try:
            model.push_to_hub("tester/both", public=True, private=True)
        except ValueError as error:
            assert "contradict" in str(error)
        else:
            raise AssertionError
        """,
        project=True,
    )
    names = ("default", "public", "as-in-transformers", "private")
    assert [published.hub.repo(f"tester/{name}").private for name in names] == [True, False, False, True]


def test_loading_unpickles_nothing(published):
    published.hub.run(
        """
        import sys
        from transformers import AutoModel
        def refuse(event, arguments):
            if event == "pickle.find_class":
                raise RuntimeError(f"unpickling {arguments}")
        sys.addaudithook(refuse)
        AutoModel.from_pretrained("org/amer", trust_remote_code=True, verify=True)
        """
    )


def test_a_base_that_comes_as_a_pickle_is_refused(published, tmp_path):
    config = published.hub.files("org/base", published.base_commit)["config.json"]
    published.hub.seed("org/pickled", {"config.json": config, "pytorch_model.bin": b"cos\nsystem\n(S'false'\ntR."})
    done = published.hub.run(
        LOAD, tmp_path / "v.npy", json.dumps({"base_model_name_or_path": "org/pickled"}), check=False
    )
    assert done.returncode != 0 and "org/pickled" in done.stderr and "safetensors" in done.stderr


def test_a_push_leaves_the_card_alone(published):
    card = b"---\nlicense: mit\ntags:\n- mine\n---\n\nWritten by hand.\n"
    published.hub.seed("tester/carded", {"README.md": card, "model-00001-of-00002.safetensors": b"of an earlier push"})
    push = """
    import sys
    from modeling_amer import AMERModel
    AMERModel.from_pretrained("org/amer").push_to_hub("tester/carded", tags=sys.argv[1:] or None)
    """
    published.hub.run(push, project=True)
    files = published.hub.files("tester/carded")
    assert files["README.md"] == card
    assert "model-00001-of-00002.safetensors" not in files, "weights of an earlier model are left beside the new ones"
    published.hub.run(push, "added", project=True)
    text = published.hub.files("tester/carded")["README.md"].decode()
    assert "Written by hand." in text and ModelCard(text).data.tags == ["mine", "added"]
    assert ModelCard(text).data.license == "mit"


def test_the_card_of_a_first_push_names_the_base(published):
    card = ModelCard(published.hub.files("org/amer")["README.md"].decode())
    assert card.data.base_model == "org/base" and card.data.get("base_model_relation") == "adapter"
    assert 'AutoModel.from_pretrained("org/amer", trust_remote_code=True)' in card.text


def test_a_killed_push_leaves_the_old_repository(published):
    push = """
    from modeling_amer import AMERModel
    model = AMERModel.from_pretrained("org/amer")
    model.input_projection.weight.data.zero_()
    model.push_to_hub("tester/killed")
    """
    hub = published.hub
    hub.seed("tester/killed", {"config.json": b"{}", "model.safetensors": b"old"})
    before = hub.files("tester/killed")
    for method, pattern in [("POST", "/preupload/"), ("PUT", "."), ("POST", "/commit/")]:
        hub.die_before(method, pattern)
        assert hub.run(push, project=True, check=False).returncode != 0
        assert hub.files("tester/killed") == before, f"killed before {method} {pattern}"
    hub.die_after("POST", "/commit/")
    assert hub.run(push, project=True, check=False).returncode != 0
    after = hub.files("tester/killed")
    assert after["model.safetensors"] != b"old" and json.loads(after["config.json"])["model_type"] == "amer"


def test_a_base_in_a_folder_is_not_published(published, tmp_path):
    base = save_tiny_base(tmp_path / "base", "llama")
    requests = len(published.hub.requests)
    done = published.hub.run(
        """
        import sys
        from modeling_amer import AMERModel
        lora = {"r": 2, "target_modules": ["q_proj"]}
        AMERModel.from_base(sys.argv[1], document_dim=8, lora=lora).push_to_hub("tester/local")
        """,
        base,
        project=True,
        check=False,
    )
    assert (
        done.returncode != 0
        and "others cannot load" in done.stderr
        and "base_model_name_or_path set to" in done.stderr
    )
    assert len(published.hub.requests) == requests, "the Hub was asked before the refusal"


def test_a_full_model_of_a_local_base_is_published_without_its_path(published, tmp_path):
    base = save_tiny_base(tmp_path / "base", "llama")
    published.hub.run(
        """
        import sys
        from modeling_amer import AMERModel
        AMERModel.from_base(sys.argv[1], document_dim=8).push_to_hub("tester/full", max_shard_size="20KB")
        """,
        base,
        project=True,
    )
    files = published.hub.files("tester/full")
    assert str(tmp_path).encode() not in b"".join(content for name, content in files.items())
    assert sum(name.endswith(".safetensors") for name in files) > 1
    published.hub.run(
        """
        from transformers import AutoModel
        assert AutoModel.from_pretrained("tester/full", trust_remote_code=True, verify=True).config.weights == "full"
        """
    )


def test_a_private_repository_needs_its_token(published, tmp_path):
    environment = {"HF_TOKEN": None, "HF_HOME": tmp_path / "cold"}
    done = published.hub.run(LOAD, tmp_path / "v.npy", "{}", check=False, **environment)
    assert done.returncode != 0 and "org/amer" in done.stderr
    _, vectors = published.load(tmp_path, token="hf_test", environment=environment)
    assert np.array_equal(vectors, published.vectors)
