"""The house: imports go downward only, each foreign package has one owner, and nothing lives at module level.

Every rule is a function from a file to its breaches. It is held against every file of the package, and, to show that
it can fail, against a file that breaks it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from support.source import PACKAGE, ROOT, Import, Source, sources

Rule = Callable[[Source], Iterator[str]]
FILES = sources(PACKAGE)

# What each floor may import of the package, from the ground up; the rooms at the top may import everything.
LEAVES = {"errors", "options", "version"}
FLOORS = {
    "errors": {"errors"},
    "wire": {"wire", "errors"},
    "core": {"core", "wire", "errors", "options"},
    "net": {"net", "core", "wire", "errors", "options", "version"},
    "serving": {"serving", "net", "core", "wire", "errors", "options", "version"},
    "spark": {"spark", "net", "core", "wire", "errors", "options", "version"},
    "peers": {"peers", "net", "core", "wire", "errors", "options", "version"},
    "calling": {"calling", "net", "core", "wire", "errors", "options", "version"},
}
SERVERS = {
    *("partition_server", "query_server", "peer_server", "flask_server"),
    *("coordinator", "cluster", "clusters", "testing"),
}
CLIENTS = {"client", "aio"}

# Modules that do, draw or look at something; BYTES and RULES only compute.
IMPURE = {
    *(
        "asyncio",
        "concurrent",
        "ctypes",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
    ),
    *("sched", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "ssl", "subprocess"),
    *("tempfile", "threading", "_thread", "time", "urllib", "uuid"),
}
PICKLERS = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "copyreg", "joblib"}

# Foreign packages and the files that may import them. At import time only the first group: what a client needs.
NEEDED = {"zmq": ("net/",), "msgpack": ("wire/",), "nacl": ("wire/",)}
EXTRAS = {
    "numpy": ("wire/payload.py", "wire/exact_reading.py"),
    "pyarrow": ("wire/", "spark/"),
    "pyspark": ("spark/",),
    "py4j": ("spark/",),
    "pandas": ("spark/",),
    "flask": ("flask_server.py", "thread_utils.py"),
    "werkzeug": ("flask_server.py", "thread_utils.py"),
    "cheroot": ("flask_server.py", "thread_utils.py"),
    "waitress": ("flask_server.py", "thread_utils.py"),
    "tqdm": ("progress.py",),
    "cloudpickle": ("spark/shipping.py",),
}
OWNERS = {**NEEDED, **EXTRAS}


def inside(found: Import) -> str | None:
    """Which part of the package is imported: a folder or a file at the top; None: it is foreign."""
    parts = found.module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


# ----------------------------------------------------------------------------------------------- rules


def imports_go_downward(source: Source) -> Iterator[str]:
    """wire, core, net; spark, calling, serving; rooms: each imports what is below it, and the leaves are the ground."""
    allowed = FLOORS.get(source.folder)
    if allowed is None and source.room.removesuffix(".py") in LEAVES:
        allowed = LEAVES
    if allowed is None:
        return
    for found in source.imports:
        part = inside(found)
        climbs = found.module == PACKAGE and not any(
            inside(other) for other in source.imports if other.line == found.line
        )
        if climbs or (part is not None and part not in allowed):
            yield f"{source.at(found.line)} imports {found.module}"


def bytes_and_rules_are_pure(source: Source) -> Iterator[str]:
    """wire and core touch no socket, thread, clock, log, file or source of randomness."""
    if source.folder not in ("wire", "core"):
        return
    for found in source.imports:
        if found.top in IMPURE and not found.typing:
            yield f"{source.at(found.line)} imports {found.module}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "datetime.now",
            "datetime.utcnow",
            "date.today",
            "open",
        ):
            yield f"{source.at(node.lineno)} calls {ast.unparse(node.func)}"


def rules_know_no_format(source: Source) -> Iterator[str]:
    """core speaks in messages; msgpack and numpy stay below."""
    if source.folder == "core":
        foreign = (found for found in source.imports if found.top in OWNERS)
        yield from (f"{source.at(found.line)} imports {found.module}" for found in foreign)


def foreign_packages_have_one_owner(source: Source) -> Iterator[str]:
    """zmq in net, msgpack in wire, pyspark in spark; others only name their types. No package comes in unnoticed."""
    for found in source.imports:
        if found.top in sys.stdlib_module_names or found.top == PACKAGE or found.typing:
            continue
        if not source.room.startswith(OWNERS.get(found.top, ())):
            yield f"{source.at(found.line)} imports {found.module}"


def extras_are_imported_when_they_are_needed(source: Source) -> Iterator[str]:
    """A client without Spark, Flask and numpy must be able to import everything."""
    for found in source.imports:
        if found.top in EXTRAS and not found.lazy and not found.typing:
            yield f"{source.at(found.line)} imports {found.module} at once"


def there_is_one_clock(source: Source) -> Iterator[str]:
    """time.monotonic is read in net/clock.py, time.time nowhere; the wall clock jumps, and tests need one handle."""
    clocks = [found for found in source.imports if found.module.startswith("time.") and found.module != "time.sleep"]
    for found in clocks:
        if not (source.room == "net/clock.py" and found.module == "time.monotonic"):
            yield f"{source.at(found.line)} imports {found.module}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("time.") and node.attr != "sleep":
            yield f"{source.at(node.lineno)} uses {ast.unparse(node)}"


def nothing_runs_code_of_others(source: Source) -> Iterator[str]:
    """No pickle but in spark, which ships what the driver itself made (and testing, which copies a server); no eval."""
    for found in source.imports:
        together = {other.module for other in source.imports if other.line == found.line}
        if together == {"pickle", "pickle.PickleBuffer"}:  # memory as it lies: pickles nothing
            continue
        if found.top in PICKLERS and source.folder != "spark" and source.room != "testing.py":
            yield f"{source.at(found.line)} imports {found.module}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "compile", "__import__"):
            yield f"{source.at(node.lineno)} calls {ast.unparse(node.func)}"


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MAKERS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "OrderedDict", "Counter", "ChainMap"}
LIVE = {"WeakSet", "WeakValueDictionary", "WeakKeyDictionary", "Lock", "RLock", "Condition", "Event", "local", "Queue"}
CHANGERS = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"}


def nothing_lives_at_module_level(source: Source) -> Iterator[str]:
    """Tables are constants in capitals that nobody changes; everything else belongs to an object with an end."""
    constants = set()
    for node in source.tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        maker = ast.unparse(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            if maker in LIVE:
                yield f"{source.at(node.lineno)} makes a {maker}"
            elif isinstance(value, MUTABLE) or maker in MAKERS:
                constants.add(name)
                if name != name.upper() and not name.startswith("__"):
                    yield f"{source.at(node.lineno)} assigns {name}"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield f"{source.at(node.lineno)} says global {', '.join(node.names)}"
        changed = None
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            changed = node.func.value
        if isinstance(changed, ast.Name) and changed.id in constants:
            yield f"{source.at(node.lineno)} changes {changed.id}"


RULES = [
    imports_go_downward,
    bytes_and_rules_are_pure,
    rules_know_no_format,
    foreign_packages_have_one_owner,
    extras_are_imported_when_they_are_needed,
    there_is_one_clock,
    nothing_runs_code_of_others,
    nothing_lives_at_module_level,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rule(rule: Rule) -> None:
    """The breaches, all of them, by file and line."""
    assert [breach for source in FILES for breach in rule(source)] == []


BREACHES = [
    (imports_go_downward, "wire/x.py", "from ..core import lease"),
    (imports_go_downward, "wire/x.py", "from ..options import ClientOptions"),
    (imports_go_downward, "core/x.py", "from ..net.clock import monotonic"),
    (imports_go_downward, "net/x.py", "from .. import client"),
    (imports_go_downward, "net/x.py", "import spark_partition_server"),
    (imports_go_downward, "serving/x.py", "from ..client import Client"),
    (imports_go_downward, "serving/x.py", "from ..spark.task import Identity"),
    (imports_go_downward, "spark/x.py", "def f():\n    from ..cluster import Cluster"),
    (imports_go_downward, "calling/x.py", "from ..client import Client"),
    (imports_go_downward, "errors/x.py", "from ..wire import codes"),
    (bytes_and_rules_are_pure, "wire/x.py", "import socket"),
    (bytes_and_rules_are_pure, "core/x.py", "def f():\n    from time import monotonic"),
    (bytes_and_rules_are_pure, "core/x.py", "now = datetime.now()"),
    (rules_know_no_format, "core/x.py", "import msgpack"),
    (foreign_packages_have_one_owner, "client.py", "import zmq"),
    (foreign_packages_have_one_owner, "net/x.py", "from msgpack import packb"),
    (foreign_packages_have_one_owner, "cluster.py", "def f():\n    from pyspark import SparkContext"),
    (foreign_packages_have_one_owner, "wire/codec.py", "def f():\n    import numpy"),
    (foreign_packages_have_one_owner, "client.py", "import requests"),
    (extras_are_imported_when_they_are_needed, "wire/payload.py", "import numpy"),
    (extras_are_imported_when_they_are_needed, "spark/x.py", "try:\n    import pyspark\nexcept ImportError:\n    pass"),
    (there_is_one_clock, "client.py", "from time import monotonic"),
    (there_is_one_clock, "net/clock.py", "from time import time"),
    (there_is_one_clock, "client.py", "import time\nstart = time.perf_counter()"),
    (nothing_runs_code_of_others, "client.py", "import pickle"),
    (nothing_runs_code_of_others, "net/x.py", "def f():\n    from cloudpickle import loads"),
    (nothing_runs_code_of_others, "spark/x.py", "eval('1')"),
    (nothing_runs_code_of_others, "core/x.py", "from pickle import PickleBuffer, loads"),
    (nothing_lives_at_module_level, "client.py", "clients = []"),
    (nothing_lives_at_module_level, "client.py", "clients: dict = dict()"),
    (nothing_lives_at_module_level, "client.py", "_CLIENTS = weakref.WeakSet()"),
    (nothing_lives_at_module_level, "client.py", "KNOWN = {}\ndef f():\n    KNOWN['a'] = 1"),
    (nothing_lives_at_module_level, "client.py", "KNOWN = []\ndef f():\n    KNOWN.append(1)"),
    (nothing_lives_at_module_level, "client.py", "count = 0\ndef f():\n    global count\n    count += 1"),
]


@pytest.mark.parametrize(("rule", "room", "text"), BREACHES, ids=[f"{r.__name__}: {t}" for r, _, t in BREACHES])
def test_a_breach_is_found(rule: Rule, room: str, text: str) -> None:
    """A rule that finds nothing anywhere proves nothing."""
    assert list(rule(Source(f"{PACKAGE}/{room}", text)))


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("wire/x.py", "from . import codes\nfrom .codes import Code\nfrom ..errors import ProtocolError"),
        ("wire/payload.py", "def f():\n    import numpy"),
        ("core/x.py", "import hmac\nfrom ..wire import codec"),
        ("net/clock.py", "from time import monotonic"),
        ("client.py", "import time\nfrom time import sleep\n\nPAUSE = time.sleep"),
        ("cluster.py", "if TYPE_CHECKING:\n    from pyspark import SparkContext\nfrom .spark import job"),
        ("spark/x.py", "import pickle\n\ndef f():\n    import pyspark"),
        ("client.py", "TABLE = {1: 2}\n__all__ = ['a']\nNAMES = ('a',)\n\ndef f():\n    own = []\n    own.append(1)"),
    ],
)
def test_what_is_allowed_is_no_breach(room: str, text: str) -> None:
    """A rule that finds something everywhere would be switched off."""
    assert [breach for rule in RULES for breach in rule(Source(f"{PACKAGE}/{room}", text))] == []


# ------------------------------------------------------------------------------- clients and servers


def reachable(start: str) -> set[str]:
    """The parts of the package that are loaded with one of its files, lazily or not."""
    by_part: dict[str, list[Source]] = {}
    for source in FILES:
        by_part.setdefault(source.folder or source.room.removesuffix(".py"), []).append(source)
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        part = waiting.pop()
        if part in seen or part not in by_part:
            continue
        seen.add(part)
        found = (inside(one) for source in by_part[part] for one in source.imports if not one.typing)
        waiting += [part for part in found if part is not None]
    return seen - {start}


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_clients_know_no_servers(client: str) -> None:
    """A client is small: no Spark, nothing that serves, not even through something else."""
    assert reachable(client) & (SERVERS | {"spark", "serving"}) == set()


@pytest.mark.parametrize("server", sorted(SERVERS - {"cluster", "testing"}))
def test_servers_know_no_clients(server: str) -> None:
    """An executor that serves does not load what calls; only a cluster and the tests' cluster hand out clients."""
    assert reachable(server) & CLIENTS == set()


def test_one_file_at_most_needs_pynacl() -> None:
    """Cryptography in one place can be read in one sitting."""
    owners = {source.path for source in FILES for found in source.imports if found.top == "nacl"}
    assert len(owners) <= 1


# ----------------------------------------------------------------------------------------- at run time

HEAVY = ["pyspark", "py4j", "flask", "werkzeug", "numpy", "pyarrow", "pandas", "tqdm", "waitress", "cheroot", "asyncio"]


@pytest.mark.parametrize("module", [PACKAGE, *(f"{PACKAGE}.{part}" for part in ("wire.payload", "client", "testing"))])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    """A client needs pyzmq and msgpack; a script that only imports us starts in a moment."""
    script = (
        f"import sys, {module}\nloaded = {HEAVY!r}\nsys.exit(', '.join(n for n in loaded if n in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} loads {done.stderr}"
