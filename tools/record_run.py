"""The command `record_run`; see `--help`."""

from backbones.record import main

if __name__ == "__main__":
    main()
