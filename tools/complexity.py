"""Parameters, multiply-adds and activations of the networks (Table 1)."""

from backbones.analysis.table1 import main

if __name__ == "__main__":
    main()
