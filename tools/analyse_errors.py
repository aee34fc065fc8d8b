"""The command `analyse_errors`; see `--help`."""

from detection.analysis.analyse_errors import main

if __name__ == "__main__":
    main()
