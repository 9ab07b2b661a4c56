from .ambigqa import build_ambigqa
from .compound import build_compound
from .custom import build_custom
from .dataset import RetrievalDataset, load_dataset_dir, load_split, save_dataset_dir
from .multihop import build_2wikimultihopqa, build_hotpotqa, build_musique
from .python_api import build_python_api
from .qampari import build_qampari
from .synthetic import build_synthetic
from .verification import verify_folder
from .wikipedia import build_wikipedia
from .wordnet import build_wordnet

__all__ = [
    "RetrievalDataset",
    "build_2wikimultihopqa",
    "build_ambigqa",
    "build_compound",
    "build_custom",
    "build_hotpotqa",
    "build_musique",
    "build_python_api",
    "build_qampari",
    "build_synthetic",
    "build_wikipedia",
    "build_wordnet",
    "load_dataset_dir",
    "load_split",
    "save_dataset_dir",
    "verify_folder",
]
