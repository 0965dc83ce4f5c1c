"""lmms-eval model classes, one thin file per method."""
