"""No client costs the others more than the model itself does."""

import contextlib

import psutil

from clients.contract.errors import Broken, NotApplicable, claim
from clients.contract.probe_client import MEBIBYTE
from clients.system.processes import LaunchError, raise_nofile_limit


@claim()
def a_reset_before_the_first_byte_ends_one_connection(server):
    together = server.serves_together()
    for _ in range(10):
        server.guest().reset()
        server.serves_others(together)
    server.visit()


@claim()
def a_reset_after_the_first_byte_ends_one_connection(server):
    with server.guest() as bystander:
        bystander.say(b"I stay")
        for number in range(5):
            guest = server.guest()
            guest.sendall(b"I go")
            if number % 2:
                guest.is_answered(0.1)  # the reset comes after the answer, or before
            guest.reset()
        bystander.say(b"still here")
    server.visit()


@claim("--quiet")
def a_reset_in_the_middle_of_an_answer_ends_one_connection(server):
    at_rest = server.descriptors_at_rest()
    together = server.serves_together()
    guest = server.guest()
    guest.flood(64 * MEBIBYTE)
    guest.reset()
    server.serves_others(together)
    server.settle(at_rest)
    server.calm("the client has broken off")


@claim()
def a_client_that_leaves_with_answers_unread_ends_one_connection(server):
    for _ in range(10):
        with server.guest() as guest:
            # Three chunks: the answer to the first makes the client's kernel send a reset, and
            # the next answer meets it (EPIPE).
            guest.sendall(b"no need to answer " * 150)
    server.visit()


@claim("--quiet")
def a_client_that_never_reads_costs_no_memory_and_no_service(server):
    together = server.serves_together()
    before = server.memory()
    with server.guest() as guest:
        sent = guest.flood(64 * MEBIBYTE)
        grown = server.memory() - before
        if grown > 8 * MEBIBYTE:
            raise Broken(f"sent {len(sent)} bytes and read nothing: memory grew by {grown} bytes")
        server.calm("a client does not read")
        server.serves_others(together)
    server.visit()


@claim()
def a_client_that_never_speaks_costs_no_service(server):
    together = server.serves_together()
    with server.guest(), server.guest():
        server.serves_others(together)
    server.visit()


@claim()
def a_client_that_drips_costs_no_service(server):
    together = server.serves_together()
    with server.guest() as guest:
        for byte in b"drip":
            guest.say(bytes([byte]))
            server.serves_others(together)
    server.visit()


@claim("--quiet", "--compute", "0.0002")  # so that the client is always ahead of its answers
def a_client_that_never_stops_asking_costs_no_service(server):
    together = server.serves_together()
    most = 16 * MEBIBYTE  # counted, not timed: on a busy machine all of this is slower
    with server.guest() as guest, guest.greedy(most) as answered:
        server.eventually(lambda: answered() > MEBIBYTE, "1 MiB of answers to who asks on and on")
        server.serves_others(together)
        if together and (had := answered()) >= most:
            raise Broken(f"newcomers waited until who came before had {had} bytes of answers")
    server.visit()


@claim("--quiet", "--backlog", "50")
def clients_that_come_at_once_are_all_greeted(server):
    together = server.serves_together()
    with contextlib.ExitStack() as stack:
        with server.frozen():  # so that all of them are in the accept queue when it looks
            guests = [stack.enter_context(server.guest()) for _ in range(8)]
            for guest in guests:
                guest.sendall(b"we come together")
        for guest in guests:
            guest.expect_greeting(b"we come together")
            if not together:
                guest.close()  # it is the next one's turn


@claim("--quiet", "--backlog", "1024")
def a_thousand_idle_clients_are_kept(server):
    crowd = 1000
    try:
        most = raise_nofile_limit(crowd + 100)
    except LaunchError as error:
        raise NotApplicable(str(error)) from error
    for process in server.processes():
        process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    before = server.descriptors_at_rest()
    together = server.serves_together()
    with contextlib.ExitStack() as stack:
        idlers = [stack.enter_context(server.guest()) for _ in range(crowd)]
        if together:
            expected = before + crowd
            server.eventually(lambda: server.descriptors() >= expected, f"{expected} descriptors")
            for idler in idlers[:: crowd // 10]:
                idler.say(b"I wake up")
        server.serves_others(together)
        server.calm(f"{crowd} clients are idle")
    server.settle(before)
    server.visit()
