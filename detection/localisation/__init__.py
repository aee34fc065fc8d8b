"""ImageNet localisation (Appendix C): one box for each class that a picture may show."""
