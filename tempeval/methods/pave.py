"""PAVE: a small patch adds what a side channel (audio, 3D, more frames) says to visual tokens.

Source: PAVE, arXiv 2503.19794; code github.com/dragonlzm/PAVE.
"""

from __future__ import annotations

from tempeval.methods.pave_patch import PavePatch

__all__ = ["PavePatch"]
