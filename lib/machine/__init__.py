"""The machine a process runs on: its device, memory and limits, and how a process ends."""
