"""Scores files of detections; see `--help`."""

from detection.score import main

if __name__ == "__main__":
    main()
