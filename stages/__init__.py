"""Verbs: each stage reads files, calls lib, writes files. Run one as `python -m stages.<name>`."""
