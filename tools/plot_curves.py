"""Training and test errors of runs over their iterations (Fig. 4 and 6)."""

from backbones.analysis.plot_curves import main

if __name__ == "__main__":
    main()
