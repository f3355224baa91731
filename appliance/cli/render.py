"""Configuration of other programs: `appliance dnsmasq-config`, `dhcp-snippet`, `smb-config`,
`nfs-config`, and `tftpboot`.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import click

from appliance.cli import load_config
from appliance.fs import atomic

_output = click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead; it is replaced atomically.",
)


def _say(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return

    atomic.put(output, [text.encode()], 0o644)  # dnsmasq reads the file as another user


@click.command("dnsmasq-config")
@_output
@click.option(
    "--tftp-only",
    is_flag=True,
    help="TFTP only; another DHCP server points here (see dhcp-snippet).",
)
@click.pass_context
def dnsmasq_config(ctx: click.Context, output: Path | None, tftp_only: bool) -> None:
    """Print a complete dnsmasq.conf for this lab.

    Run `dnsmasq --conf-file=FILE`, or install FILE for a dnsmasq that serves only the lab.
    """
    from appliance.boot.daemons import dnsmasq

    _say(dnsmasq.configuration(load_config(ctx), tftp_only=tftp_only), output)


@click.command("dhcp-snippet")
@click.argument("kind", type=click.Choice(["isc", "kea", "windows"]))
@click.option("--all", "everybody", is_flag=True, help="For every machine, not only testboxes.")
@_output
@click.pass_context
def dhcp_snippet(ctx: click.Context, kind: str, everybody: bool, output: Path | None) -> None:
    """Print settings that make another DHCP server point testboxes at this server.

    The output names the registered testboxes: print it again after registering or removing any.
    For a DHCP server without conditions, set the file that the firmware loads
    (ipxe/bin-x86_64-efi/snp.efi); iPXE 1.21 and later then finds autoexec.ipxe beside that file.
    """
    from appliance.boot.daemons import snippets
    from appliance.scheduler import hosts_files

    config = load_config(ctx)
    facts, wrong = hosts_files.read_all(config.paths.hosts, config.defaults.queue)
    for text in wrong:
        click.echo(f"appliance: left out: {text}", err=True)
    macs = None if everybody else sorted(mac for one in facts for mac in one.macs)
    _say(snippets.snippet(kind, config, macs), output)


@click.command("smb-config")
@click.option("--directories", is_flag=True, help="Also make the directories that it names.")
@_output
@click.pass_context
def smb_config(ctx: click.Context, directories: bool, output: Path | None) -> None:
    """Print a complete smb.conf that shares the images with testboxes, read-only.

    Run `smbd --foreground --configfile=FILE`; it shares nothing with the machine's own Samba.
    smbd starts only if its directories exist.
    """
    from appliance.boot.daemons import smb

    config = load_config(ctx)
    _say(smb.configuration(config), output)
    for path in smb.directories(config) if directories else ():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)


@click.command("nfs-config")
@click.option("--directories", is_flag=True, help="Also make the directories that it names.")
@click.option("--kernel", is_flag=True, help="Print exports for the kernel's NFS server instead.")
@_output
@click.pass_context
def nfs_config(ctx: click.Context, directories: bool, kernel: bool, output: Path | None) -> None:
    """Print a complete ganesha.conf that exports the images to testboxes by NFS 4, read-only.

    Run `ganesha.nfsd -F -f FILE`; jobs whose documents say `os_mount: nfs` use it.
    ganesha starts only if its directories exist.
    """
    from appliance.boot.daemons import ganesha, nfsd

    config = load_config(ctx)
    if kernel:
        _say(nfsd.configuration(config), output)
        return
    try:
        said = subprocess.run(["ganesha.nfsd", "-v"], capture_output=True, text=True, check=False)
        version = ganesha.version_of(said.stdout)
    except OSError:  # not installed here: the file is for another machine
        version = ganesha.version_of("")
    _say(ganesha.configuration(config, version), output)
    for path in ganesha.directories(config) if directories else ():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)


@click.command()
@click.option(
    "--ipxe",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A directory of iPXE binaries, named as in Debian's package; searched first.",
)
@click.option(
    "--arm64",
    is_flag=True,
    help="Fetch iPXE for arm64 from a newer Debian; needed before Debian 13.",
)
@click.option("--remove", is_flag=True, help="Remove what an earlier call laid out.")
@click.pass_context
def tftpboot(ctx: click.Context, ipxe: tuple[Path, ...], arm64: bool, remove: bool) -> None:
    """Lay out the tftp root: iPXE under the names that testboxes ask for, and boot.ipxe.

    The binaries come from Debian's package `ipxe`.  Run this command again after the package is
    updated or the configuration changes.
    """
    from appliance.boot.daemons import tftp

    config = load_config(ctx)
    if remove:
        tftp.remove(config.paths.tftp)
        return
    with tftp.newer() if arm64 else contextlib.nullcontext() as fetched:
        laid = tftp.lay_out(config, [*ipxe, *tftp.PACKAGED, *([fetched] if fetched else ())])
    width = max(map(len, tftp.NAMES))
    for each in laid:
        source = each.source or "none here; testboxes with this firmware can't boot"
        if fetched and each.source and each.source.is_relative_to(fetched):
            source = f"{each.source.name} of Debian {tftp.NEWER}"
        click.echo(f"{config.paths.tftp}/{each.name:{width}}  {source}")
