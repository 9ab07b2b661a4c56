"""Say whether a saved AMER model gives the vectors here that it gave where it was saved, and how far it is off."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, or `arguments`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder or a name on the Hub")
    parser.add_argument("--revision", help="commit, tag or branch of the model")
    parser.add_argument("--base_model", help="another copy of the base: a folder or a name on the Hub")
    parser.add_argument("--base_model_revision", help="of --base_model: a commit, tag or branch")
    parser.add_argument("--dtype", help="precision of the decoder (default: the one it was trained in)")
    parser.add_argument("--device", default="cpu", help="where it runs (default: cpu)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Load, encode the probe's questions, compare; exit with 1 when the vectors are not those of the probe."""
    given = parse_arguments(arguments)
    from modeling_amer import AMERModel, Probe

    options = {
        "base_model_name_or_path": given.base_model,
        "base_model_revision": given.base_model_revision,
        "dtype": given.dtype,
    }
    options = {name: value for name, value in options.items() if value is not None}
    model = AMERModel.from_pretrained(given.model, revision=given.revision, **options).to(given.device)
    report = Probe.from_pretrained(given.model, revision=given.revision).compare(model)
    name = Path(given.model).name if Path(given.model).is_dir() else given.model
    Console().print(f"{name}: {report}", soft_wrap=True, highlight=False)
    raise SystemExit(0 if report.reproduced else 1)


if __name__ == "__main__":
    main()
