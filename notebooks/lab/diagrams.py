"""Pictures of TCP besides the sequence diagrams: what clients see that wait to be connected."""

from load_tests.harness.charts import draw

from .sequence import END_COLOUR, GREY, OPENING, caption, write

ANSWERED = END_COLOUR["client"]  # the colour of a SYN that was answered


def syn_timeline(results, title):
    """Return a Figure of each SYN of the clients that had to wait: {name: AcceptQueue}.

    A row per client; all begin at the first client's connect().
    """

    def panel(ax):
        rows = []
        for name, data in results.items():
            for rank, client in enumerate(data.clients, 1):
                packets = [p for p in data.packets if p.port == client.port]
                syns = [p.sent for p in packets if p.flags == "SYN"]
                if len(syns) > 1:
                    syn_row(ax, len(rows), syns, client, data.watched)
                    rows.append(f"{name}, client {rank}")
        room = max(call.ended for data in results.values() for call in data.calls)
        ax.axvline(room, color=GREY, ls="--", zorder=0)
        words = f"accept() at {room:.1f} s makes room for one client"
        ax.text(room, -0.75, words, color=GREY, ha="center", va="bottom", fontsize=10)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(len(rows) - 0.5, -0.7)
        ax.set_xlim(right=1.13 * max(data.watched for data in results.values()))
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("seconds since the first client's connect()")
        ax.set_title(title, pad=22)
        look = {"frameon": False, "ncols": 3, "loc": "upper left", "bbox_to_anchor": (-0.25, -0.13)}
        ax.plot([], [], "x", color="black", ms=9, mew=2, label="a SYN that is dropped")
        ax.plot([], [], "o", color=ANSWERED, ms=9, label="a SYN that is answered")
        ax.plot([], [], color=OPENING, lw=6, label="the client waits in SYN-SENT")
        ax.legend(**look)
        sources = dict.fromkeys(data.source for data in results.values())
        caption(ax, "; ".join(sources), below=76)

    return draw(10, 5.3, panel)


def syn_row(ax, row, syns, client, watched):
    """Draw how long a client waited; syns: when it sent each SYN; watched: until when, seconds."""
    answered = client.connected is not None
    ends = [client.began, client.connected if answered else watched]
    ax.plot(ends, [row, row], color=OPENING, lw=6, solid_capstyle="butt", zorder=1)
    for at in syns:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        write(ax, (at, row), f"{at:.1f}", (0, 9), va="baseline", fontsize=9, bbox=box)
        if answered and at == syns[-1]:
            ax.plot(at, row, "o", color=ANSWERED, ms=9, zorder=2)
        else:
            ax.plot(at, row, "x", color="black", ms=8, mew=2, zorder=2)
    if not answered:
        write(ax, (watched, row), "still waits", (5, 0), ha="left", fontsize=10, color=GREY)


def half_open_port(data):
    """Return the port of a client that is connected, while the server has no such connection."""
    known = data.final["server"]
    return next(
        client.port
        for client in data.clients
        if client.connected and known.get(str(client.port)) != "ESTABLISHED"
    )
