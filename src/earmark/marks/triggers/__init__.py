"""Trigger sets: one file per kind, and how each is minted and minted again."""
