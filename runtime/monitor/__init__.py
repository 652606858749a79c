"""What comes of predictions after their run: whether the data still are as they were, and whether rows repeat."""
