"""Image files: lists of them, reading, decoding, packing."""
