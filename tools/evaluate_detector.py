"""The command `evaluate_detector`; see `--help`."""

from detection.test import main

if __name__ == "__main__":
    main()
