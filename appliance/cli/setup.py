"""`appliance install` and `uninstall`: sets this machine up as a lab server, or undoes it."""

from __future__ import annotations

import click

from appliance.cli.show import echo
from appliance.errors import FAILED

_LEFT_TO_OTHERS = click.Choice(["dnsmasq", "cifs", "nfs"])


@click.command()
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    metavar="IFACE",
    help="The network interface that testboxes are on; repeatable.",
)
@click.option(
    "--dhcp-range",
    "ranges",
    multiple=True,
    metavar="FIRST-LAST[/PREFIX@RELAY]",
    help="Addresses to lease; by default the larger part of the interface's network.  "
    "With PREFIX and RELAY: addresses of a network behind a DHCP relay.",
)
@click.option(
    "--proxy-dhcp",
    is_flag=True,
    help="Another server leases addresses; answer only known testboxes.",
)
@click.option(
    "--lease-anyway",
    is_flag=True,
    help="Lease addresses even if another DHCP server answers on the network.",
)
@click.option(
    "--without",
    "without",
    multiple=True,
    type=_LEFT_TO_OTHERS,
    help="Leave out this service: something else provides it on this server.",
)
@click.option("--dry-run", is_flag=True, help="Print every change, and make none.")
@click.option("--rollback", is_flag=True, help="Go back to the version before the last upgrade.")
@click.option(
    "--with-state",
    is_flag=True,
    help="With --rollback: also go back to the state that version left; the state since then "
    "is set aside, and the ids of its jobs are used again.",
)
@click.pass_context
def install(
    ctx: click.Context,
    interfaces: tuple[str, ...],
    ranges: tuple[str, ...],
    proxy_dhcp: bool,
    lease_anyway: bool,
    without: tuple[str, ...],
    dry_run: bool,
    rollback: bool,
    with_state: bool,
) -> None:
    """Install the appliance on this server, or upgrade the installed one.

    The program unpacks itself to /usr/lib/appliance, makes users, folders and the configuration,
    installs the distribution's packages that it needs, and starts its units.  A failed install
    undoes its changes; repeating an install changes nothing.  Parked testboxes and running jobs
    survive an upgrade.
    """
    from appliance.cli import manual
    from appliance.install import install as work

    if with_state and not rollback:
        raise click.UsageError("--with-state goes with --rollback")
    if rollback and (interfaces or ranges or proxy_dhcp or without or lease_anyway):
        raise click.UsageError("--rollback goes with no other choice")
    if rollback:
        work.rollback(echo, manual.all_of, state=with_state, dry_run=dry_run)
    else:
        asked = work.Asked(interfaces, ranges, proxy_dhcp, frozenset(without), lease_anyway)
        if not work.install(asked, echo, manual.all_of, dry_run=dry_run):
            echo("all is as it should be: nothing to do")
    if not dry_run and work.doctor(echo) != 0:
        ctx.exit(FAILED)


@click.command()
@click.option(
    "--purge",
    is_flag=True,
    help="Also remove the state, the configuration, and the folders of /srv that an install "
    "made, with all images and results.",
)
@click.option("--dry-run", is_flag=True, help="Print every change, and make none.")
def uninstall(purge: bool, dry_run: bool) -> None:
    """Remove what `appliance install` made; /srv, the state and the configuration stay."""
    from appliance.cli import manual
    from appliance.install import install as work

    left = work.uninstall(echo, manual.all_of, purge=purge, dry_run=dry_run)
    for what in left:
        echo(f"stays: {what}")
