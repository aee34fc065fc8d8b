"""The command `compare_detectors`; see `--help`."""

from detection.compare.command import main

if __name__ == "__main__":
    main()
