"""Export: a checkpoint becomes graphs, graphs become a bundle."""
