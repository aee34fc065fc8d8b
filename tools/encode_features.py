"""Residual encodings of a network's patches beside plain ones."""

from backbones.encoding.encode_features import main

if __name__ == "__main__":
    main()
