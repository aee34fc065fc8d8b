"""Signals and gradients layer by layer, with and without batch normalisation (4.1)."""

from backbones.analysis.signal_propagation import main

if __name__ == "__main__":
    main()
