"""One file a peer: how it is loaded and asked. Runs in the peer's own environment."""
