"""How fast the engine trains, beside plain PyTorch, on the machine it runs on."""
