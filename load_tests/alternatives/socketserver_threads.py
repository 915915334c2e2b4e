"""Thread per connection, as the standard library has it: socketserver.ThreadingTCPServer.

Run it: python3 load_tests/alternatives/socketserver_threads.py --port 3267
"""

import socketserver

from common import converse, run


def start(listener, options, converse=converse):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            converse(self.request, self.client_address, options)

    server = socketserver.ThreadingTCPServer(None, Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    return server.serve_forever


if __name__ == "__main__":
    run(start, __doc__)
