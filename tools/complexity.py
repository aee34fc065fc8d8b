"""Parameters and multiply-adds of the networks (Table 1)."""

from backbones.analysis.complexity import main

if __name__ == "__main__":
    main()
