"""How fast the engine trains, compared with plain PyTorch, on the machine at hand."""
