"""The Python API, which `namd` offers by name; nothing is computed here that rooms below could."""
