"""Thieves: a query that answers like a stolen model and hides the mark, by what it does to an image first."""
