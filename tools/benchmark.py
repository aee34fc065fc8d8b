"""Speed and memory of parts of the project beside the usual way."""

from detection.benchmark.command import main

if __name__ == "__main__":
    main()
