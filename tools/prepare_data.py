"""The command `prepare_data`; see `--help`."""

from detection.prepare import main

if __name__ == "__main__":
    main()
