"""Small graphs that read the decoder's last hidden state."""
