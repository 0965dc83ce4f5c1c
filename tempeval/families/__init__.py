"""Base-model families: a `Clip` to visual tokens, a prompt to a `Layout`."""
