"""The rules of the peer plane: what one rank does with what others say (PROTOCOL.md, sections 8.6 and 8.7).

``Peer`` is one rank in one process, ``Context`` a communicator, ``Request`` what a caller waits for; what a door has to
do is written in ``peer.py``. How a communicator's calls become theirs, with ``d`` for the call's deadline:

=====================  ==============================================================================================
call                   how
=====================  ==============================================================================================
send, isend            ``peer.send(context, dest, tag, frames, d)``; an array's memory may be among the frames: then
                       the request is done once it has left. ssend: ``synchronous=True``, bsend: ``buffered=True``
Send, Isend            the same with one frame, the buffer, and ``signature=`` the type of its items
recv, irecv            ``peer.recv(context, source, tag, d, signature="")``; ``request.value`` is frames; its
                       ``source``, ``tag`` and ``octets`` are the Status
Recv, Irecv            the same with ``into=`` the buffer as flat octets, and ``signature=`` its type
probe, iprobe          ``peer.probe``, again after each message until there is one; mprobe: ``claim``, ``recv_claimed``
barrier                ``peer.start(context, signature("barrier"), trees.barrier(rank, size), d)``; so all collectives:
                       ``choice`` picks the schedule, a blocking call waits for the request, an ``i...`` call returns it
bcast of an object     the root packs it, ``trees.bcast_tree`` moves the frames, all but the root unpack them
reduce of objects      ``values.Arithmetic(op, pack, unpack, commutative)``, and ``values.reduce`` and its like
Reduce, Allreduce      numbers are copied to where the result goes, which is ``work``; ``combine`` is the op's own
Split, Dup             ``peer.split``, and ``peer.opened`` with its request; Free: ``peer.close``
Agree, Shrink          ``peer.agree``; for Shrink then ``peer.shrunk`` with its request
Revoke, Is_revoked     ``peer.revoke``; ``context.verdict is not None``; Get_failed: ``context.failed``
=====================  ==============================================================================================
"""
