"""How strongly the layers of trained networks respond (4.2, Fig. 7)."""

from backbones.analysis.layer_responses import main

if __name__ == "__main__":
    main()
