"""Forgers: a mark read off, or ground for, a model that somebody else made."""
