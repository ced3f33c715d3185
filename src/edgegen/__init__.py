"""edgegen."""
