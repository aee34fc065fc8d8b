"""The command `evaluate_classifier`; see `--help`."""

from backbones.evaluate import main

if __name__ == "__main__":
    main()
