"""The command `detection_gallery`; see `--help`."""

from detection.analysis.detection_gallery import main

if __name__ == "__main__":
    main()
