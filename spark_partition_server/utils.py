"""The original library's helpers, where they always were."""

from __future__ import annotations

from .net.endpoints import get_host, get_open_port

__all__ = ["get_host", "get_open_port"]
