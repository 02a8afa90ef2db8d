"""Gateway processes: one, several workers, signals, memory."""
