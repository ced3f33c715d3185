"""Profiles: tokens and their times become numbers."""
