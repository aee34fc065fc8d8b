"""Pictures of what low, middle and high stages of a trained network respond to."""

from backbones.analysis.show_features import main

if __name__ == "__main__":
    main()
