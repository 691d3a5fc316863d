# An HTTP server that can be made ill: fickle.py PORT ID.
#
# SIGHUP switches /healthz between 200 and 503. SIGUSR1 makes the port refuse connections although the socket stays open,
# SIGUSR2 makes it accept them again. What asks for /healthz is written to standard output.
import http.server
import signal
import socket
import sys
import time

status = 200


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code, body = 200, sys.argv[2]
        if self.path == "/healthz":
            code, body = status, "health"
            print("/healthz", self.client_address[0], self.headers["User-Agent"], flush=True)
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.01)  # refusing: don't spin
            raise


server = Server(("", int(sys.argv[1])), Handler)


def switch(*_):
    global status
    status = 503 if status == 200 else 200


signal.signal(signal.SIGHUP, switch)
signal.signal(signal.SIGUSR1, lambda *_: server.socket.shutdown(socket.SHUT_RDWR))
signal.signal(signal.SIGUSR2, lambda *_: server.socket.listen(64))
server.serve_forever()
