"""Statistics on numpy arrays. No torch, no files."""
