"""Thieves: a new model that should keep the accuracy and lose the mark."""
