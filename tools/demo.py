"""The command `demo`; see `--help`."""

from detection.demo import main

if __name__ == "__main__":
    main()
