"""A run on several processes: who computes what, and what they exchange."""
