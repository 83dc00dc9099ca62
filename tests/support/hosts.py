"""Three hosts on one machine: a driver, executors and clients, each in a network namespace of its own, and a router.

::

    driver 192.0.2.2 ----+
    executors 198.51.100.2 ----+--- router, which drops or rejects what the test says
    clients 203.0.113.2 ----+

The addresses are those that are set aside for documents; the namespaces are joined with each other and with nothing
else, so no packet leaves them. Each is held by a process that waits for the end of its input: when the test ends, or
is killed, the namespaces are gone with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from .remote import Remote, Worked, run
from .wait import wait_until

__all__ = ["CLIENTS", "DRIVER", "EXECUTORS", "Host", "Hosts", "hosts", "missing"]

DRIVER, EXECUTORS, CLIENTS = "192.0.2.2", "198.51.100.2", "203.0.113.2"
COMMAND_TIMEOUT = 10


class Host:
    """A network namespace.

    Args:
        within: an earlier one, whose user namespace it shares.
    """

    def __init__(self, within: Host | None = None) -> None:
        above = [] if within is None else within.prefix
        own_users = ["--user", "--map-root-user"] if within is None and os.geteuid() else []
        outside = os.readlink("/proc/self/ns/net")
        self._holder = subprocess.Popen(
            [*above, "unshare", *own_users, "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.pid = self._holder.pid
        users = ["--user", "--preserve-credentials"] if os.geteuid() else []
        self.prefix = ["nsenter", "--target", str(self.pid), *users, "--net"]
        inside = [outside] if within is None else [outside, os.readlink(f"/proc/{within.pid}/ns/net")]
        try:
            wait_until(lambda: self._cat() and self._namespace() not in inside, COMMAND_TIMEOUT, "a namespace")
        except BaseException:
            self.end()
            raise

    def _cat(self) -> bool:
        assert self._holder.poll() is None, "no network namespace could be made"
        with open(f"/proc/{self.pid}/comm") as file:
            return file.read() == "cat\n"

    def _namespace(self) -> str:
        return os.readlink(f"/proc/{self.pid}/ns/net")

    def command(self, *words: str) -> str:
        """Runs a command on this host; returns what it prints."""
        command = [*self.prefix, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def ip(self, words: str) -> str:
        """The command ``ip``."""
        return self.command("ip", *words.split())

    def start(self, function: Worked, *arguments: Any) -> Remote:
        """Runs a function in a process on this host."""
        return Remote(function, *arguments, prefix=self.prefix)

    def run(self, function: Worked, *arguments: Any) -> Any:
        """The same, and waits for what it returns."""
        return run(function, *arguments, prefix=self.prefix)

    def end(self) -> None:
        """The namespace goes once no process is in it. Twice is harmless."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(COMMAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()


class Hosts:
    """See above.

    Attributes:
        driver, executors, clients: the hosts.
    """

    def __init__(self, ended: contextlib.ExitStack) -> None:
        self._router = Host()
        ended.callback(self._router.end)
        self._router.command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        made = []
        for number, address in enumerate((DRIVER, EXECUTORS, CLIENTS)):
            host = Host(self._router)
            ended.callback(host.end)
            made.append(host)
            self._join(host, f"port{number}", address)
        self.driver, self.executors, self.clients = made
        self._rules: list[str] = []

    def _join(self, host: Host, port: str, address: str) -> None:
        router, gateway = self._router, address.rpartition(".")[0] + ".1"
        router.ip(f"link add {port} type veth peer name eth0 netns {host.pid}")
        router.ip(f"address add {gateway}/24 dev {port}")
        router.ip(f"link set {port} up")
        host.ip("link set lo up")
        host.ip(f"address add {address}/24 dev eth0")
        host.ip("link set eth0 up")
        host.ip(f"route add default via {gateway}")

    def forbid(self, action: str, which: str) -> None:
        """What the router does with packets.

        Args:
            action: ``blackhole``: drops them without a word; ``prohibit``: tells their sender (ICMP).
            which: as ``ip rule`` says it.
        """
        self._rule(f"{which} {action}")

    def allow(self, which: str) -> None:
        """An exception from what was forbidden before."""
        self._rule(f"{which} table main")

    def _rule(self, rule: str) -> None:
        self._router.ip(f"rule add {rule}")  # in front of the earlier ones
        self._rules.append(rule)

    def permit(self) -> None:
        """The router passes everything on again."""
        while self._rules:
            self._router.ip(f"rule delete {self._rules.pop()}")


def missing() -> str:
    """Why there can be no hosts here; empty if there can."""
    for name in ("ip", "unshare", "nsenter"):
        if shutil.which(name) is None:
            return f"the command {name!r} is not here (packages iproute2 and util-linux)"
    own_users: Sequence[str] = ["--user", "--map-root-user"] if os.geteuid() else []
    words = ["unshare", *own_users, "--net", "ip", "link", "add", "port0", "type", "veth"]
    tried = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    return f"this user may not make network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@contextlib.contextmanager
def hosts() -> Iterator[Hosts]:
    """The hosts; they are gone at the end."""
    with contextlib.ExitStack() as ended:
        yield Hosts(ended)
