"""Host-side test rig: Debian roots, loop devices, systemd-nspawn machines and service probes."""
