"""Two ports, routes, neighbours and a firewall, as an operator would set them in a root."""

from collections.abc import Callable
from pathlib import Path

from tests.rig import sh

PORTS = ("enp0s16", "enp0s17")
MACS = ("02:00:00:00:01:01", "02:00:00:00:02:01")
PEERS = ("02:00:00:00:01:02", "02:00:00:00:02:02")
FORWARDING = "net.ipv4.ip_forward=1\nnet.ipv6.conf.all.forwarding=1\n"
NFT = """\
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
    set friends { type ipv4_addr; elements = { 10.1.0.2, 10.2.0.2 } }
    chain forward {
        type filter hook forward priority filter; policy accept;
        udp dport 6666 counter drop
        ip saddr @friends counter accept
    }
}
"""


def networkd(top: Path) -> None:
    """Let systemd-networkd set up the ports."""
    for i in (0, 1):
        (top / f"etc/systemd/network/10-port{i}.network").write_text(f"""\
[Match]
MACAddress={MACS[i]}
[Network]
Address=10.{i + 1}.0.1/24
Address=fd00:{i + 1}::1/64
LinkLocalAddressing=no
IPv6AcceptRA=no
[Neighbor]
Address=10.{i + 1}.0.2
LinkLayerAddress={PEERS[i]}
[Neighbor]
Address=fd00:{i + 1}::2
LinkLayerAddress={PEERS[i]}
[Route]
Destination=10.{i + 11}.0.0/16
Gateway=10.{i + 1}.0.2
Table=100
[RoutingPolicyRule]
From=10.{i + 1}.0.0/24
Table=100
Priority=100{i}
""")
    systemctl(top, "enable", "systemd-networkd.service")
    systemctl(top, "mask", "systemd-networkd-wait-online.service")
    systemctl(top, "disable", "networking.service")


def ifupdown(top: Path) -> None:
    """Let ifupdown set up the ports, each when udev sees it."""
    for i in (0, 1):
        ip = f"10.{i + 1}.0", f"fd00:{i + 1}:"
        (top / f"etc/network/interfaces.d/{PORTS[i]}").write_text(f"""\
allow-hotplug {PORTS[i]}
iface {PORTS[i]} inet static
    address {ip[0]}.1/24
    up ip neigh replace {ip[0]}.2 lladdr {PEERS[i]} nud permanent dev $IFACE
    up ip route add 10.{i + 11}.0.0/16 via {ip[0]}.2 table 100
    up ip rule add from {ip[0]}.0/24 table 100 priority 100{i}
    down ip rule del from {ip[0]}.0/24 table 100 priority 100{i}
iface {PORTS[i]} inet6 static
    address {ip[1]}:1/64
    up ip neigh replace {ip[1]}:2 lladdr {PEERS[i]} nud permanent dev $IFACE
""")
    systemctl(top, "enable", "networking.service")


def common(top: Path) -> None:
    """Forwarding and the firewall."""
    (top / "etc/sysctl.d/90-forward.conf").write_text(FORWARDING)
    (top / "etc/nftables.conf").write_text(NFT)
    systemctl(top, "enable", "nftables.service")


def systemctl(top: Path, *words: str) -> None:
    """systemctl in a root that does not run."""
    sh.run(["systemctl", f"--root={top}", "--quiet", *words])


VARIANTS: dict[str, Callable[[Path], None]] = {"networkd": networkd, "ifupdown": ifupdown}
