"""Walking over large arrays in pieces that stay in a core's cache."""

# Entries of a block of rows: few enough to stay in a core's cache between two uses.
BLOCK_ENTRIES = 2**18


def row_blocks(array):
    """Yields slices that cover the rows of a [samples, classes] array, a cache-sized block each."""
    rows = max(1, BLOCK_ENTRIES // array.shape[1])
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)
