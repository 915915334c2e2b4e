"""Network namespaces: a network that belongs to one program, and ends with it.

Source: network_namespaces(7), ip-sysctl.rst.
"""

import contextlib
import ctypes
import socket
import struct
from pathlib import Path

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
libc = ctypes.CDLL(None, use_errno=True)

SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFMTU = 0x8914, 0x8916, 0x891C, 0x8922
IFF_UP = 1  # <linux/if.h>; the others: <linux/sockios.h>


def enter(namespace):
    """Move the calling thread into a network namespace: a descriptor, or None for a new one."""
    status = (
        libc.unshare(CLONE_NEWNET) if namespace is None else libc.setns(namespace, CLONE_NEWNET)
    )
    if status != 0:
        raise OSError(ctypes.get_errno(), "cannot make or enter a network namespace")


def shrink_tcp_tables():
    """Give network namespaces made from now on a small table of connections of their own.

    It is read 50 times as fast as the table that all share (Linux 6.2; ip-sysctl.rst).
    """
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv4/tcp_child_ehash_entries").write_text("256")


def bring_up(device, address=None, mtu=None):
    """Bring a network device up, in the namespace of the calling thread (netdevice(7)).

    address: IPv4, with a prefix of 24 bits. mtu: bytes of the largest packet.
    """
    import fcntl  # not at the top: Windows does not have it

    requests = [(SIOCSIFMTU, struct.pack("i", mtu))] if mtu else []
    if address:
        kind = struct.pack("HH", socket.AF_INET, 0)  # the beginning of a struct sockaddr_in
        requests.append((SIOCSIFADDR, kind + socket.inet_aton(address)))
        requests.append((SIOCSIFNETMASK, kind + socket.inet_aton("255.255.255.0")))
    requests.append((SIOCSIFFLAGS, struct.pack("H", IFF_UP)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in requests:
            fcntl.ioctl(control, request, struct.pack("16s24s", device.encode(), value))
