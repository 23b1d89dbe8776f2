"""An interaction log -> canonical splits: the paper's protocol, and readers of raw files."""
