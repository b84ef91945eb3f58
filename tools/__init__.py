"""Tools around the pipeline; no stage imports them. A package, because some PyTorch builds install one of this name."""
