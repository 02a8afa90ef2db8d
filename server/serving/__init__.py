"""One image's way: admission, decoding pool, batching, deadlines, predictions."""
