"""Writes frames.json and exact.json, the vectors that any implementation of the protocol can be held against.

Run it from anywhere: ``python tests/vectors/generate.py``. It uses struct and msgpack, and nothing of the library, so
that the library cannot agree with itself by accident. What it writes depends on nothing but its own text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
if str(TESTS) not in sys.path:
    sys.path.insert(0, str(TESTS))

from vectors import cases_exact, cases_messages, cases_values, cases_zmtp, notation, spec  # noqa: E402

__all__ = ["EXACT", "TARGET", "text"]

TARGET = TESTS / "vectors" / "frames.json"
EXACT = TESTS / "vectors" / "exact.json"
NOTES = [
    "valid: decodes to what stands beside it, and that encodes to these very octets.",
    "acceptable: decodes to what stands beside it; we never produce it.",
    "invalid: refused with the error named; null: the connection ends without one of the codes.",
    "A case of a group that is no kind of message says by 'of' which kind it is of.",
    "zmtp: 'in' arrives at a receiver that plays 'role' and has the limits of its group; 'out' is what it answers "
    "after its own opening. An id is never used again for something else.",
    *(" ".join(part.split()) for part in (notation.__doc__ or "").strip().split("\n\n")),
]


def text() -> str:
    """The whole of frames.json: one line a case."""
    groups = [*cases_messages.groups(), *cases_values.groups(), *cases_zmtp.groups()]
    head = {
        "protocol": "SPS 1",
        "generator": "tests/vectors/generate.py",
        "count": sum(len(group["cases"]) for group in groups),
        "run_id": spec.RUN_ID.hex(),
        "codes": spec.CODES,
        "notes": NOTES,
    }
    lines = [json.dumps(head, indent=1)[:-2] + ',\n "groups": [']
    for position, group in enumerate(groups):
        rest = {name: content for name, content in group.items() if name != "cases"}
        lines.append(json.dumps(rest)[:-1] + ', "cases": [')
        lines.append(",\n".join(json.dumps(case, separators=(",", ":")) for case in group["cases"]))
        lines.append("]}" + ("," if position + 1 < len(groups) else ""))
    return "\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    for target, content in ((TARGET, text()), (EXACT, cases_exact.exact_text())):
        target.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{target}: {len(content)} octets\n")
