"""Runs: what was asked for, carried out, recorded, resumed, and matched in budget."""
