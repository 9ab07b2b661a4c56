"""`python -m amer ...` is `amer ...`; launchers of several processes need it: `accelerate launch -m amer ...`."""

from amer.commands import main

if __name__ == "__main__":
    main()
