"""The comparison of models through the whole path."""
