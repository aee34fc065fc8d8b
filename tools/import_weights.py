"""The command `import_weights`; see `--help`."""

from backbones.import_weights import main

if __name__ == "__main__":
    main()
