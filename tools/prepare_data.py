"""The command `prepare_data`; see `--help`."""

from backbones.prepare import main

if __name__ == "__main__":
    main()
