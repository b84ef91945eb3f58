"""The fleet: runs on many machines, any process of which may die at any time."""
