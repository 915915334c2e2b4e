"""Nothing is left behind."""

from clients.client import LONGEST
from clients.contract.errors import Broken, claim
from clients.contract.probe_client import MEBIBYTE, Guest


@claim("--quiet", "--backlog", "100")
def no_descriptor_and_no_thread_is_left_behind(server):
    at_rest = server.descriptors_at_rest()
    hello = b"hello, then good-bye"

    def leave_in_every_way():
        for leave in (Guest.close, half_close_and_read, Guest.reset):
            guests = [server.guest() for _ in range(20)]
            for guest in guests:
                guest.sendall(hello)
            for guest in guests:
                leave(guest)
        server.settle(at_rest)

    def half_close_and_read(guest):
        with guest:
            guest.half_close()
            guest.read_to_the_end(hello)

    leave_in_every_way()  # a pool may start its threads now and keep them
    before = server.threads()
    leave_in_every_way()
    server.eventually(lambda: server.threads() <= before, f"{before} threads, as before")


@claim("--quiet")
def what_was_answered_is_forgotten(server):
    with server.guest() as guest:
        for number in range(4096):
            if number == 100:  # by now it has what it needs in any case
                before = server.memory()
            guest.say(b"%04d" % number * (LONGEST // 4))
        grown = server.memory() - before
    if grown > 2 * MEBIBYTE:
        raise Broken(f"4 MiB were said, greeted and read: memory grew by {grown} bytes")


@claim()
def an_idle_server_uses_no_cpu(server):
    server.calm("nobody is there")
    with server.guest() as silent, server.guest() as speaker:
        silent.say(b"I was first")
        speaker.half_close()  # it says no more, but does not leave
        server.calm("its clients are silent")
