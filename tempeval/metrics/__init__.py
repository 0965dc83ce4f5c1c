"""Scores that the tasks share: each is a pure function of answers and references."""
