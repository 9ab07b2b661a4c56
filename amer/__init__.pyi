from .corpus import DocumentEncoder, DocumentStore, encode_corpus, open_documents, write_store
from .data import RetrievalDataset, load_dataset_dir, save_dataset_dir
from .evaluation import Report, Run, evaluate_model, mrecall_at_k, recall_at_k
from .search import ExactIndex, FaissIndex, Hit, MilvusIndex, Searcher, encode_queries, open_index
from .trainer import AMERCollator, AMERTrainer, AMERTrainingArguments

__all__ = [
    "AMERCollator",
    "AMERTrainer",
    "AMERTrainingArguments",
    "DocumentEncoder",
    "DocumentStore",
    "ExactIndex",
    "FaissIndex",
    "Hit",
    "MilvusIndex",
    "Report",
    "RetrievalDataset",
    "Run",
    "Searcher",
    "encode_corpus",
    "encode_queries",
    "evaluate_model",
    "load_dataset_dir",
    "mrecall_at_k",
    "open_documents",
    "open_index",
    "recall_at_k",
    "save_dataset_dir",
    "write_store",
]

__version__: str
