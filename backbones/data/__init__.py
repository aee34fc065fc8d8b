"""Pictures for classifiers: data sets, augmentation, and the order in which they come."""
