"""The command `reproduce`; see `--help`."""

from backbones.reproduce.command import main

if __name__ == "__main__":
    main()
