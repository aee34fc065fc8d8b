"""The command `evaluate_localiser`; see `--help`."""

from detection.localisation.evaluate import main

if __name__ == "__main__":
    main()
