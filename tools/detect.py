"""The command `detect`; see `--help`."""

from detection.detect import main

if __name__ == "__main__":
    main()
