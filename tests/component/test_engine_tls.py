"""TLS and large bodies: many records, partial writes, names that differ from the address."""

from __future__ import annotations

import socket
import threading

import pytest
import trustme

from targets.scripted import Certificate, Route, Scripted
from workers.process import Figures, WorkerProcess, a_load

BIG = "x" * 300_000


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Return a CA's PEM and a certificate it issued for shop.example."""
    directory = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    leaf = ca.issue_cert("shop.example")
    leaf.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    return ca.cert_pem.bytes().decode(), Certificate(chain=directory / "chain.pem", key=directory / "key.pem")


def test_large_answers_come_whole_over_tls(tmp_path, authority):
    """Many records, in every framing; keep-alive holds; the name asked for is the one verified, not the address."""
    ca, certificate = authority
    routes = [
        Route(path="/big", body=BIG),
        Route(path="/chunks", body=BIG, framing="chunked", pieces=7),
        Route(path="/small"),
        Route(path="/close", body=BIG, framing="close"),
    ]
    flow = [
        {"request": {"get": path}, "expect": {"status": "200", "body": "x" * 2000}}
        for path in ("/big", "/chunks", "/close")
    ]
    flow.append({"request": {"get": "/small"}, "expect": {"json": {"ok": True}}})
    target = {"tls": {"serverName": "shop.example"}}
    with Scripted(routes, tls=certificate) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, flow, scheme="https", target=target, ca=ca), users=6)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") >= 200)
        worker.drain()
        figures = Figures.of(worker)
        assert figures.get("checks_failed", 0) == figures.get("failed", 0) == 0, figures
        assert figures["sent"] == figures["done"] == server.log.received
        assert figures["bytes_in"] > figures["done"] // 4 * 3 * len(BIG)


def test_without_the_server_name_the_certificate_does_not_fit(tmp_path, authority):
    """The address is verified when no name is given: the handshake fails, nothing is sent."""
    ca, certificate = authority
    with Scripted([Route(path="/")], tls=certificate) as server, WorkerProcess(tmp_path) as worker:
        worker.assign(a_load(server.port, [{"request": {"get": "/"}}], scheme="https", ca=ca), users=2)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("error_network_tls") >= 4)
        worker.drain()
        assert "sent" not in Figures.of(worker)


def test_a_request_the_kernel_takes_in_parts_arrives_whole(tmp_path):
    """A target that reads slowly gets every byte; the answer is counted once."""
    body = "b" * 60_000
    size = []

    def serve(listener):
        peer, _ = listener.accept()
        with peer:
            data = b""
            while b"\r\n\r\n" not in data:
                data += peer.recv(1000)
            rest = data.partition(b"\r\n\r\n")[2]
            got = len(rest)
            while got < len(body):
                got += len(peer.recv(500))
            size.append(got)
            peer.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok")

    with socket.socket() as listener, WorkerProcess(tmp_path) as worker:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        flow = [{"request": {"post": "/", "body": body}}, {"think": {"constant": "1h"}}]
        worker.assign(a_load(listener.getsockname()[1], flow), users=1)
        worker.wait_for(lambda ack: ack["settled"])
        worker.wait_until(lambda w: w.live("done") == 1)
        thread.join(5)
        figures = Figures.of(worker)
        assert [60_000] == size
        assert (1, 1) == (figures["sent"], figures["class_2xx"])
