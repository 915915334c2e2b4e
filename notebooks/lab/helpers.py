"""What the notebooks share: the mode, the pictures, and servers that end with the notebook."""

import ast
import atexit
import contextlib
import io
import os
import socket
import time
from collections import Counter

from clients.system import processes, procfs

DPI = 84  # pixels of a page per inch of a figure
MODE = os.environ.get("NOTEBOOKS", "default")  # "quick", "default", or "full"
running = contextlib.ExitStack()  # what this notebook has started
atexit.register(running.close)


def choose(quick, default, full):
    """Return one of the three, by the mode in which this notebook runs."""
    return {"quick": quick, "default": default, "full": full}[MODE]


def show(figure):
    """Return a figure as a small PNG of twice the pixels of the page, sharp on a projector.

    As SVG it would be smaller still, but GitHub leaves out parts of an SVG in a notebook.
    """
    from IPython.display import Image  # not at the top: these take half a second
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image as Pixels

    figure.set_dpi(choose(DPI / 4, 2 * DPI, 2 * DPI))
    if MODE == "quick":  # nobody looks at it
        figure.set_layout_engine("none")
    else:  # the first layout leaves too much room next to long texts
        figure.draw_without_rendering()
    canvas, small = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    # A palette by octree has the colours of rare marks, too, not only the most frequent ones.
    drawn = Pixels.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())
    few = drawn.convert("RGB").quantize(255, Pixels.Quantize.FASTOCTREE)
    few.save(small, "png", optimize=True)
    return Image(small.getvalue(), format="png", width=few.width // 2)


def start(name, *options):
    """Start a server that runs until end(), or until the notebook's kernel ends."""
    return running.enter_context(processes.running_server(processes.find_server(name), *options))


def end():
    """End every server, and close every connection, that this notebook has opened."""
    running.close()


def connection(small=False):
    """Return the two ends of a TCP connection, here and there, both in this process.

    small: the buffers from there to here are as small as the kernel allows (socket(7)).
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = running.enter_context(socket.socket())
        if small:  # before the handshake, in which the sizes are agreed on
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # no piece waits for an ACK
        here.connect(listener.getsockname())
        return here, running.enter_context(listener.accept()[0])


def source(name, part):
    """Print a function or a class of a server's program, as it is in the file."""
    text = processes.find_server(name).read_text()
    for node in ast.parse(text).body:
        if getattr(node, "name", None) == part:
            first = min(each.lineno for each in (node, *node.decorator_list))
            print(*text.splitlines()[first - 1 : node.end_lineno], sep="\n")


def sockets_of(server):
    """Print the kernel's list of the sockets of a server and its clients, and their processes."""
    port = server.address[1]
    held = {}  # {inode: its descriptor}
    for name, pid in ("this notebook", os.getpid()), ("the server", server.process.pid):
        fds = procfs.socket_fds(pid).items()
        held |= {inode: f"descriptor {fd} of {name}" for inode, fd in fds}
    for line in procfs.tcp_sockets(port):
        remote = "%s:%d" % line.remote if line.remote[1] else "any client"
        ends = "%s:%d" % line.local + " -> " + remote
        holder = held.get(line.inode, "no process")
        print(f"{ends:36} {line.state:12} inode {line.inode:<8} {holder}")


def wait_for_connections(server, count):
    """Wait until a server has as many connections that it has accepted and not closed."""
    port, found = server.address[1], None
    while found != count:
        time.sleep(0.005)
        ends = [one for one in procfs.tcp_sockets(port) if one.local[1] == port]
        found = sum(bool(one.remote[1] and one.inode) for one in ends)


def hasty_client(server, messages, times, pause):
    """Send all messages without waiting for replies; return how often each reply came, a Counter.

    pause: seconds between two messages. times: how often, each on a new connection.
    Counter({"Hello, annbob": 7, "Hello, annHello, bob": 3}).
    """
    outcomes = Counter()
    for _ in range(times):
        with socket.create_connection(server.address, timeout=10) as sock:
            for message in messages:
                sock.send(message)
                end = time.perf_counter() + pause
                while time.perf_counter() < end:  # a sleep cannot be as short as these pauses
                    pass
            sock.shutdown(socket.SHUT_WR)
            outcomes[sock.makefile("rb").read().decode()] += 1
    return outcomes
