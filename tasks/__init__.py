"""lmms-eval task YAMLs (data-only folders) and the helpers they name."""
