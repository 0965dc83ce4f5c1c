"""The engine: the only code that attaches to a model."""
