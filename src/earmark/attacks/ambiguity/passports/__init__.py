"""Forgers of passports: some for a model that somebody else has protected, with bits of their own."""
