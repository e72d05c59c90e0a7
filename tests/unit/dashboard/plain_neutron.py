"""A Neutron without our extension: prints the port of 127.0.0.1 where it listens.

A process of its own, because code of Neutron's that other tests import replaces the threads of this
one by eventlet's.
"""

import http.server
import json


class Neutron(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        error = {"type": "ExtensionNotFound", "message": "Extension not found.", "detail": ""}
        link = {"rel": "self", "href": f"http://{self.headers['Host']}/v2.0/"}
        version = {"id": "v2.0", "status": "CURRENT", "links": [link]}
        root = self.path == "/"
        answer = {"versions": [version]} if root else {"NeutronError": error}
        body = json.dumps(answer).encode()
        self.send_response(200 if root else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return


if __name__ == "__main__":
    with http.server.HTTPServer(("127.0.0.1", 0), Neutron) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
