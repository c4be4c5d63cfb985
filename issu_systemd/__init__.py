"""In-Service Software Upgrade on systemd: every process and file is replaced, the kernel stays."""

__version__ = "0.5.0"
