"""Random changes to training images, each a function of a seed."""
