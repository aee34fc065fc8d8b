"""Network namespaces as hosts: machines of their own as far as the network goes; disk and host name are shared.

All traffic stays inside: hosts hang on a bridge that lies in a namespace too, and nothing leads out of it.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.faults.lab import Broken, Unavailable

INTERFACE = "eth0"  # of each host


@dataclass(frozen=True)
class Host:
    """One of the hosts.

    Args:
        namespace: its name.
        address: by which the others reach it.
    """

    namespace: str
    address: str

    @property
    def prefix(self) -> list[str]:
        """A command after these words runs on the host."""
        return ["ip", "netns", "exec", self.namespace]


@dataclass(frozen=True)
class Network:
    """Hosts that reach one another, as long as they are not cut off. Made by `connect_hosts`.

    Args:
        switch: the namespace of the bridge.
        hosts: on it.
    """

    switch: str
    hosts: list[Host]

    def cut(self, host: Host) -> None:
        """Takes a host off the network, as if its cable were drawn: what is sent is lost, and nobody is told."""
        self._set(host, "down")

    def mend(self, host: Host) -> None:
        """Puts it back."""
        self._set(host, "up")

    def _set(self, host: Host, state: str) -> None:
        try:
            _ip("-n", self.switch, "link", "set", f"port{self.hosts.index(host)}", state)
        except Unavailable as error:  # hosts could be made, so that this is no lack of rights
            raise Broken(str(error)) from error


@contextmanager
def connect_hosts(count: int) -> Iterator[Network]:
    """Makes hosts, and removes them in the end; what still runs on them keeps running, without a network.

    Raises:
        Unavailable: that is not possible here.
    """
    reason = why_no_hosts()
    if reason:
        raise Unavailable(reason)
    unique = secrets.token_hex(3)
    switch = f"switch-{unique}"
    hosts = [Host(f"host-{unique}-{number}", f"10.99.0.{number + 1}") for number in range(count)]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge0", "up")
        for number, host in enumerate(hosts):
            _plug_in(host, switch, f"port{number}")
        yield Network(switch, hosts)
    finally:
        for namespace in (switch, *(host.namespace for host in hosts)):
            with suppress(Unavailable):  # it was not made yet
                _ip("netns", "delete", namespace)


def why_no_hosts() -> str | None:
    """Why there can be no hosts here; None where there can."""
    if shutil.which("ip") is None:
        return "there is no `ip`: install iproute2"
    if os.geteuid() != 0:
        return "network namespaces are root's: run as root, or under `unshare --map-root-user --net --mount`"
    return None


def _plug_in(host: Host, switch: str, port: str) -> None:
    _ip("netns", "add", host.namespace)
    _ip("-n", host.namespace, "link", "set", "lo", "up")
    _ip("-n", host.namespace, "link", "add", INTERFACE, "type", "veth", "peer", "name", port, "netns", switch)
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", INTERFACE)
    _ip("-n", host.namespace, "link", "set", INTERFACE, "up")
    _ip("-n", switch, "link", "set", port, "master", "bridge0", "up")


def _ip(*arguments: str) -> None:
    finished = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if finished.returncode:
        raise Unavailable(
            f"`ip {' '.join(arguments)}` fails ({finished.stderr.strip()}): a container without NET_ADMIN?"
        )
