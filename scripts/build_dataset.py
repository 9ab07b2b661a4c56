"""Build a dataset: `python scripts/build_dataset.py wordnet --output DIR`, or `synthetic --output DIR`."""

from __future__ import annotations

import argparse

from amer.data import build_synthetic, build_wordnet
from amer.data.synthetic import SETTINGS, TRANSFORMATIONS


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    wordnet = commands.add_parser("wordnet", help="lemmas and the glosses of their senses")
    wordnet.add_argument("--source", help="a WordNet `dict` folder; the packaged extract of WordNet 3.0 when left out")
    wordnet.add_argument("--num_train", type=int, help="random choice of so many queries; all when left out")
    wordnet.add_argument("--num_validation", type=int, help="see --num_train")
    wordnet.add_argument("--num_test", type=int, help="see --num_train")
    wordnet.add_argument("--corpus_size", type=int, help="documents in the corpus; every gloss when left out")
    wordnet.set_defaults(build=build_wordnet)

    synthetic = commands.add_parser(
        "synthetic", help="the paper's synthetic study", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    synthetic.add_argument("--transformation", choices=list(TRANSFORMATIONS), default="linear", help="of the targets")
    synthetic.add_argument("--setting", choices=list(SETTINGS), default="single", help="input distributions")
    synthetic.add_argument("--dim", type=int, default=1024, help="size of the vectors")
    synthetic.add_argument("--num_train", type=int, default=20_000, help="queries, a tenth of them for validation")
    synthetic.add_argument("--num_test", type=int, default=1_000, help="test queries")
    synthetic.add_argument("--corpus_size", type=int, default=200_000, help="targets and random vectors together")
    synthetic.set_defaults(build=build_synthetic)

    for command in (wordnet, synthetic):
        output = {"dest": "path", "metavar": "DIR", "default": argparse.SUPPRESS}
        command.add_argument("--output", required=True, **output, help="a directory that does not exist yet")
        command.add_argument("--seed", type=int, default=0, help="the same seed gives the same files")
    return parser.parse_args(arguments)


def main() -> None:
    """Build what the command line asks for."""
    arguments = vars(parse_args())
    del arguments["command"]
    arguments.pop("build")(**arguments)


if __name__ == "__main__":
    main()
