"""The paper's tables and figures, and the pages that show them."""
