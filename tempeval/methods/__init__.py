"""Inference-time methods: pure functions of six stages, folded by `Chain`."""
