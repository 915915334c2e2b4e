"""Thread per connection, as the standard library has it: socketserver.ThreadingTCPServer.

Run it: python3 load_tests/alternatives/socketserver_threads.py --port 3267
"""

import socketserver

from common import converse, run


def serve(listener, options, converse=converse):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            converse(self.request, self.client_address, options)

    with socketserver.ThreadingTCPServer(
        listener.getsockname(), Handler, bind_and_activate=False
    ) as server:
        server.socket.close()
        server.socket = listener
        server.serve_forever()


if __name__ == "__main__":
    run(serve, __doc__)
