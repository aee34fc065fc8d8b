"""Residual vectors and original vectors as descriptions of pictures (2.1): VLAD and Fisher vectors of a network's
patches, the same sums without residuals, and the pooled feature, compared by retrieval and linear classification."""
