"""A client without this library: ZeroMQ, msgpack, and wire/PROTOCOL.md.

    python bare_client.py CONNECTION_FILE PARTITION METHOD [ARGUMENT ...]

calls a method of one partition and prints what it returned. Arguments are JSON where they can be read as such, and
texts otherwise. Arrays of numbers are printed as they come: as msgpack's ext types.
"""

import json
import struct
import sys

import msgpack
import zmq

VIEW, REFUSE, LOOKUP, REQUEST, REPLY, ERROR = 4, 7, 8, 32, 33, 34  # section 7
PREAMBLE = struct.Struct("!3sBBBH8s")  # section 6.2
SECONDS = 10


def ask(context, endpoint, run_id, kind, fields, *payload):
    """Sends one message on a connection of its own; returns kind, fields and payload of the answer."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.ipv6 = "[" in endpoint
    socket.connect(endpoint)
    try:
        socket.send_multipart([PREAMBLE.pack(b"SPS", 1, kind, 0, 0, run_id), msgpack.packb(fields), *payload])
        if not socket.poll(SECONDS * 1000):
            sys.exit(f"{endpoint} does not answer")
        preamble, answer, *rest = socket.recv_multipart()
    finally:
        socket.close()
    magic, version, kind, _flags, _reserved, run = PREAMBLE.unpack(preamble)
    if (magic, version, run) != (b"SPS", 1, run_id):
        sys.exit(f"{endpoint} is no part of this cluster")
    return kind, msgpack.unpackb(answer), rest


def find(context, coordinator, run_id, partition):
    """The incarnation that serves a partition, and its endpoint (sections 7.4 and 7.8)."""
    kind, fields, payload = ask(context, coordinator, run_id, LOOKUP, [0])
    if kind != VIEW:
        sys.exit(f"refused with code {fields[0]}: {fields[1]}")
    for rank, incarnation, _attempt, _host, _port, endpoint, *_ in msgpack.unpackb(payload[0]):
        if rank == partition and endpoint:
            return incarnation, endpoint
    sys.exit(f"nobody takes calls for partition {partition} of {fields[1]}")


def call(context, connection, partition, method, arguments):
    """The result of a method (sections 7.32 to 7.34)."""
    run_id = bytes.fromhex(connection["run_id"])
    incarnation, endpoint = find(context, connection["coordinator"], run_id, partition)
    fields = [1, method, SECONDS * 1000, partition, incarnation]
    kind, fields, payload = ask(context, endpoint, run_id, REQUEST, fields, msgpack.packb([arguments, {}]))
    if kind == REPLY:
        return msgpack.unpackb(payload[0], strict_map_key=False, timestamp=3)
    code, text, *more = fields[1:] if kind == ERROR else fields
    sys.exit(f"failed with code {code}: {' '.join([*more[:1], text])}")


def argument(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    path, partition, method, *arguments = sys.argv[1:]
    with open(path, encoding="utf-8") as file, zmq.Context() as context:
        print(call(context, json.load(file), int(partition), method, [argument(text) for text in arguments]))
