"""Every test in this folder is watched for what it leaves behind."""

from __future__ import annotations

from support.leaks import leaves_nothing

__all__ = ["leaves_nothing"]
