"""The command `check_data`; see `--help`."""

from detection.check import main

if __name__ == "__main__":
    main()
