"""The command `pretrain`; see `--help`."""

from backbones.train import main

if __name__ == "__main__":
    main()
