"""Other machines on a lab's bridge: a network namespace of its own, with one card."""

from __future__ import annotations

from collections.abc import Sequence

from lab.namespace import BRIDGE

# $1 = its card's name, $2 = MAC, $3 = ADDRESS/PREFIX or nothing, then what runs there.  1 is the
# process that holds the lab's namespace.  On a busy computer the bridge may take longer to forward
# for a new card than its machine takes to ask, and a question that is asked once is then lost.
_BEGIN = f"""\
set -e
ip link add "$1-wall" type veth peer name "$1"
ip link set "$1-wall" master {BRIDGE} up
exec unshare --net sh -c '
    set -e
    nsenter --net=/proc/1/ns/net ip link set "$1" netns $$
    ip link set lo up
    ip link set "$1" address "$2" up
    [ -z "$3" ] || ip address add "$3" dev "$1"
    until nsenter --net=/proc/1/ns/net bridge link show dev "$1-wall" | grep -q "state forwarding"
    do sleep 0.02; done
    shift 3
    exec "$@"
' machine "$@"
"""


def machine(card: str, mac: str, address: str, command: Sequence[str]) -> list[str]:
    """The command that, run in a lab's namespace, is a machine that runs `command`."""
    return ["sh", "-c", _BEGIN, "machine", card, mac, address, *command]
