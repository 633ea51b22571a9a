"""The "image" of these tests: a small server that tells about itself, and misbehaves when asked to."""

import http.server
import json
import os
import pathlib
import signal
import sys
import time

ready = os.environ.get("READY", "yes") == "yes"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global ready
        path = self.path
        if path == "/unready":
            ready = False
        if path == "/eat":  # grow until the kernel objects
            eaten = []
            while True:
                eaten.append(os.urandom(1 << 20))
        if path == "/burn":
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                pass
        if path.startswith("/file/"):
            self.answer(200, pathlib.Path(path.removeprefix("/file")).read_text())
        else:
            about = json.dumps({"env": dict(os.environ), "argv": sys.argv})
            self.answer(200 if ready or path != "/ready" else 503, about)

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass


def leave(number, frame):
    print("asked to leave", flush=True)
    time.sleep(float(os.environ.get("LEAVES_AFTER", "0")))
    print("left", flush=True)
    sys.exit(0)


if __name__ == "__main__":
    if "--exit" in sys.argv:
        sys.exit(int(sys.argv[sys.argv.index("--exit") + 1]))
    signal.signal(signal.SIGTERM, leave)
    if state := os.environ.get("STATE"):  # counts the starts in a volume
        with open(f"{state}/starts", "a") as file:
            file.write("x")
    if os.environ.get("CHILD") and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    server = http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Handler)
    print("serving", flush=True)
    server.serve_forever()
