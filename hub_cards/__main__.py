"""Write the card of a saved model into its folder, README.md and images: `python -m amer.hub_cards FOLDER REPO_ID`.

What people wrote into a README.md that is there already stays. `amer push` does the same when it pushes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from amer.files import read_json
from amer.hub_cards import write_model_card
from modeling_amer import AMERConfig


def main(arguments: list[str] | None = None) -> None:
    """Read what the folder and the evaluation say, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a saved model, such as an output of `amer train`")
    parser.add_argument("repo_id", metavar="REPO_ID", help="namespace/name that the model has or will have on the Hub")
    parser.add_argument("--results", type=Path, help="results.json of an evaluation")
    parser.add_argument("--system", help="name in --results of the system this model is")
    parser.add_argument("--base_model", help="name of the base on the Hub, for a model trained on a local folder")
    parsed = parser.parse_args(arguments)
    config = AMERConfig.from_pretrained(parsed.folder)
    if parsed.base_model:
        config.base_model_name_or_path = parsed.base_model
    record = parsed.folder / "training_record.json"
    write_model_card(
        parsed.folder,
        config,
        parsed.repo_id,
        training=read_json(record) if record.is_file() else None,
        report=read_json(parsed.results) if parsed.results else None,
        system=parsed.system,
    )


if __name__ == "__main__":
    main()
