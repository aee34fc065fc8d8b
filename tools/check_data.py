"""The command `check_data`; see `--help`."""

from backbones.check import main

if __name__ == "__main__":
    main()
