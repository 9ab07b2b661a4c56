"""Train an AMER retriever like `amer train`: `accelerate launch train.py CONFIG [--any_field value ...]`."""

from amer.trainer.run import main

if __name__ == "__main__":
    main()
