"""The command `train_detector`; see `--help`."""

from detection.train import main

if __name__ == "__main__":
    main()
