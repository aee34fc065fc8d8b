"""The command `train_localiser`; see `--help`."""

from detection.localisation.train import main

if __name__ == "__main__":
    main()
