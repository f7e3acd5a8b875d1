"""Fuzzing of the wire formats: each corrupt message is read or refused with a reason, in bounded time and memory.

``RELEVO_FUZZ`` sets the number of messages, a few thousand by default, and ``RELEVO_SEED`` the seed. A message with an outcome
that no message had before becomes an example for those that follow: what is behind one check is then reached as well.
"""

import dataclasses
import gc
import os
import random
import resource
import signal
import struct
import time
import tracemalloc
from collections import Counter

import msgspec
import pytest

from relevo.api import schema
from relevo.daemon import messages
from relevo.daemon.channel import Unpacker, decode_from_worker, pack
from relevo.machines.sync_peers import MAX_PEERS, SyncPeers
from relevo.machines.sync_states import MessageReceived, Refused, SetRoles
from relevo.wire import ah, ipvs_netlink, ipvs_sync, netlink, proc_connector, rtnetlink, sync_messages, traffic_control, vrrp
from relevo.wire.checksum import internet_checksum
from relevo.wire.framing import Unreadable
from relevo.wire.ip import decode_ipv4
from relevo.wire.ipvs_netlink import Destination, Identity, Method, Service
from relevo.wire.netlink import Malformed, attribute, attributes
from relevo.wire.sync_messages import Entries, Hello, Message, ResyncEnd, ResyncRequest
from tests.unit.wire.test_ipvs_sync import CAPTURED, ENTRIES
from tests.unit.wire.test_vrrp import GOLDEN

COUNT = int(os.environ.get("RELEVO_FUZZ", "5000"))
SEED = int(os.environ.get("RELEVO_SEED", "4"))
GROWTH = 200_000
"""Bytes that may be left afterwards: the interpreter's own caches, and a thousand past sessions of a machine."""
PEAK_KB = 20_000
"""Kilobytes by which the process may grow meanwhile: a message has a few hundred bytes, what is read from it not much more."""
TRACED = 5_000
"""Messages whose memory is traced, which is three times slower."""
BATCH, BATCH_S = 1_000, 20
"""Messages, and the seconds of processor time after which they hang; they take a thirtieth of a second."""
LONGEST, EXAMPLES = 4_000, 1_000
"""Bytes of a message that may become an example, and how many examples there are at most."""


def corrupted(chance, seeds):
    """Return a message with some bytes changed, cut off or inserted."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 if data:
                data[place % len(data)] = chance.randrange(256)
            case 1 if data:
                data[place % len(data)] ^= 1 << chance.randrange(8)
            case 2:
                del data[place:]
            case 3:
                data[place:place] = chance.randbytes(chance.randint(1, 9))
            case _:
                data[place : place + 4] = chance.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", struct.pack("!I", chance.randrange(80)))
                )
    return bytes(data)


def sync_seeds():
    entries = [ipvs_sync.encode(entry) for _, entry in ENTRIES.values()]
    with_options = ipvs_sync.encode(ipvs_sync.Entry(
        protocol=17, client=b"\12\0\0\1", client_port=5, virtual=b"\12\0\0\2", virtual_port=6, server=b"\12\0\0\3", server_port=7,
        state=0, sequence=bytes(24), engine="sip", engine_data=b"call",
    ))  # fmt: skip
    version_0 = bytes((1, 5, 0, 28)) + bytes.fromhex("0006cee800501f900a0100020a0100640a02020c01000001")
    return [CAPTURED, version_0, *ipvs_sync.assemble(5, [*entries, with_options])]


def read_sync(data):
    found = ipvs_sync.decode(data, 5)
    # with the right length in the header, the entries are read
    resized = data[:2] + struct.pack("!H", len(data)) + data[4:] if len(data) >= 4 else data
    again = ipvs_sync.decode(resized, 5)
    return [*found.refused, *again.refused, *("accepted" for _ in again.entries)]


def netlink_seeds():
    web = Identity(0, 2, 6, "192.0.2.10", 80)
    server = Destination(address="10.0.0.1", port=80, method=Method.TUNNEL, tunnel_type=1, tunnel_port=6080)
    service = ipvs_netlink.encode_service(Service(identity=web, timeout_s=5))
    counters = b"".join(attribute(kind, bytes(8)) for kind in range(1, 11))
    encoded = attributes(attributes(memoryview(ipvs_netlink.encode_destination(web, server)))[2])
    numbers = b"".join(attribute(kind, bytes(4)) for kind in (7, 8, 9)) + attribute(12, counters)
    dumped = attribute(2, b"".join(attribute(k, bytes(v)) for k, v in encoded.items()) + numbers)
    daemon = ipvs_netlink.encode_daemon(ipvs_netlink.Daemon(state=1, interface="eth0", group="224.0.0.81", port=8848, ttl=1))
    bodies = [service, dumped, daemon, ipvs_netlink.encode_timeouts(ipvs_netlink.Timeouts(1, 2, 3))]
    framed = [netlink.request(33, 0, 5, 1, 1, body) for body in bodies]
    return [*framed, framed[0] + framed[1], netlink.request(netlink.DONE, 0, 5, 0, 0, bytes(4))]


def read_netlink(data):
    outcome = []
    try:
        for message in netlink.messages(data):
            if message.type in (netlink.ERROR, netlink.DONE):
                netlink.error_number(message)
                continue
            _, body = netlink.generic(message)
            for read in (
                ipvs_netlink.read_service, ipvs_netlink.read_daemon, ipvs_netlink.read_timeouts, ipvs_netlink.read_info,
                lambda body: ipvs_netlink.read_destination(body, 2),
            ):  # fmt: skip
                try:
                    read(body)
                    outcome.append("accepted")
                except Malformed as refused:
                    outcome.append(refused.fault)
    except Malformed as refused:
        outcome.append(refused.fault)
    return outcome


KEY = b"a key for corrupt messages"


def message_seeds():
    named = ((b"ourselve", 3),)
    bodies = [
        Hello(True, 7, named),
        Hello(False, 0),
        Entries(8, CAPTURED),
        ResyncRequest(b"ourselve"),
        ResyncEnd(2, 9),
        ResyncEnd(5, 4),
    ]
    return [sync_messages.authenticate(Message(b"themselv", 5, number, body), KEY) for number, body in enumerate(bodies, 1)]


PEERS = SyncPeers(b"ourselve", 5, 0.0)
PEERS.receive(SetRoles(True, True), 0.0)


def read_message(data):
    """Read the data as it is, then with a valid tag, as from a faulty director; give what verifies to a machine."""
    text = data[: -sync_messages.TAG_BYTES]
    outcome = []
    for each in (data, text + sync_messages._tag(text, KEY)):
        message = sync_messages.verify(each, KEY)
        if isinstance(message, sync_messages.MessageRefusal):
            outcome.append(message)
            continue
        effects = PEERS.receive(MessageReceived(message, "192.0.2.2"), 0.0)
        outcome += [effect.reason if isinstance(effect, Refused) else "accepted" for effect in effects] or ["accepted"]
    if len(PEERS.peers) > MAX_PEERS // 2:
        PEERS.expire(0.0)
        for peer in list(PEERS.peers.values()):
            PEERS._forget(peer)
    return outcome


def advert_seeds():
    return [bytes.fromhex(each) for _, _, each in GOLDEN]


def read_advert(data):
    """Read the data as it is, and with a right checksum, which a forger writes too."""
    outcome = []
    resummed = data[:6] + b"\0\0" + data[8:]
    if len(data) >= 8:
        resummed = data[:6] + struct.pack("!H", internet_checksum(resummed)) + data[8:]
    for each in (data, resummed):
        advert = vrrp.decode(each, vrrp.Envelope("fe80::2", "ff02::12", 255), pseudo_header=False)
        outcome.append("over IPv6" if isinstance(advert, vrrp.Advert) else advert)
        for pseudo_header in (False, True):
            advert = vrrp.decode(each, vrrp.Envelope("192.168.6.2", "224.0.0.18", 255), pseudo_header=pseudo_header)
            outcome.append("accepted" if isinstance(advert, vrrp.Advert) else advert)
    vrrp.virtual_router_id(data)
    return outcome


def authenticated_seeds():
    header = ah.Header("192.168.6.2", "224.0.0.18", 255, 1, 7)
    return [ah.wrap(each, header, KEY) for each in advert_seeds()]


def read_authenticated(data):
    """Read the data as they are, and with a right digest, as of somebody who knows the key."""
    outcome = []
    for resigned in (False, True):
        found = ah.unwrap(data)
        if found is None:
            outcome.append("no packet")
            continue
        advert, envelope = found
        if resigned:
            head = envelope.headers
            zero = dataclasses.replace(envelope, headers=head[:-12] + bytes(12))
            unicast = not vrrp.is_multicast(envelope.destination)
            envelope = dataclasses.replace(zero, headers=head[:-12] + ah._digest(zero.headers, advert, KEY, unicast=unicast))
        number = ah.verify(advert, envelope, KEY)
        outcome += ["accepted"] if isinstance(number, int) else [number]
        outcome += read_advert(advert)
    return outcome


def packet_seeds():
    head = "45c0001c000100 00ff70 0000 c0a80602 e0000012"
    return [bytes.fromhex(head) + advert for advert in advert_seeds()]


def read_packet(data):
    packet = decode_ipv4(data)
    return ["no packet" if packet is None else "accepted", *(() if packet is None else read_advert(packet.payload))]


def link_seeds():
    address = rtnetlink.Address(2, "10.0.0.9", 24, "eth0:1", "10.0.0.255", 0, 0)
    added = rtnetlink.add_address(7, address)
    link = struct.pack("=BxHiII", 0, 1, 2, 0x1043, 0) + attribute(3, b"eth0\0") + attribute(18, attribute(1, b"veth\0"))
    named = rtnetlink.message(rtnetlink.NEW_LINK, 0, 1, link)
    filters = traffic_control.put_filter(1, 2, 9, 3, "relevo")
    return [added, named, added + named, filters, rtnetlink.delete_address(1, address)]


def read_links(data):
    outcome = []
    try:
        answers = list(netlink.messages(data))
    except Malformed as refused:
        return [refused.fault]
    for read in (rtnetlink.decode_addresses, rtnetlink.decode_links, lambda each: map(traffic_control.priority_of, each)):
        try:
            outcome += ["accepted" for _ in read(answers)]
        except Malformed as refused:
            outcome.append(refused.fault)
    return outcome


def event_seeds():
    heads = (struct.pack("=IIIIHHIIQ", 1, 1, 0, 0, 32, 0, kind, 0, 0) for kind in (1, 2, 0x80000000))
    return [netlink.message(3, 0, 0, head + bytes(16)) for head in heads]


def read_events(data):
    try:
        found = list(proc_connector.decode_events(data))
    except Malformed as refused:
        return [refused.fault]
    return ["accepted", *(event.kind.name for event in found)] if found else ["nothing"]


def control_seeds():
    requests = [schema.Plane(), schema.Plan("/etc/relevo.conf"), schema.Failover("VI_1"), schema.Connections(), schema.Sync()]
    return [msgspec.json.encode(each) for each in requests]


def read_control(data):
    try:
        return ["accepted", type(msgspec.json.decode(data, type=schema.Request)).__name__]
    except (msgspec.MsgspecError, RecursionError) as refused:
        return [type(refused).__name__, str(refused).partition("'")[0][:13]]


def worker_seeds():
    said = [
        messages.LogLine("Entering MASTER STATE"),
        messages.InstanceEvent("VI_1", "MASTER", 100, "priority"),
        messages.ServerEvent("10.0.0.1:80", "10.0.0.2:80", up=False, transition=True, check="TCP_CHECK", reason="timeout"),
        messages.LocalAddressesEvent(frozenset({"10.0.0.1"}), frozenset({(2, "10.0.0.1", 24)})),
    ]
    return [pack(each) for each in said] + [b"".join(pack(each) for each in said)]


def read_worker(data):
    """Read a stream of a worker's, as it is and as one frame: a worker that has been broken into says what it likes."""
    outcome = []
    for each in (data, struct.pack("!I", len(data)) + data, struct.pack("!I", len(data) - 4 & 0xFFFF) + data[4:]):
        try:
            found = Unpacker(decode_from_worker).feed(each)
            outcome += ["accepted", *(type(message).__name__ for message in found)] if found else ["nothing"]
        except Unreadable as refused:
            outcome.append(str(refused).partition("'")[0][:13])
    return outcome


CASES = {
    "sync": (sync_seeds(), read_sync, 6),
    "authenticated-sync": (message_seeds(), read_message, 6),
    "netlink": (netlink_seeds(), read_netlink, 6),
    "advert": (advert_seeds(), read_advert, 6),
    "authenticated-advert": (authenticated_seeds(), read_authenticated, 6),
    "packet": (packet_seeds(), read_packet, 6),
    "links": (link_seeds(), read_links, 4),
    "process-events": (event_seeds(), read_events, 4),
    "control": (control_seeds(), read_control, 6),
    "worker": (worker_seeds(), read_worker, 6),
}
"""Examples, what reads them, and how many outcomes there are at least, acceptance among them."""


class Fuzzer:
    """Feeds corrupt messages to a reader, and learns from those that it answers in a new way."""

    def __init__(self, seeds, read):
        self.chance = random.Random(SEED)
        self.seeds, self.read = list(seeds), read
        self.reasons, self.answers = Counter(), set()

    def feed(self, count):
        for _ in range(count):
            message = corrupted(self.chance, self.seeds)
            outcome = self.read(message)
            self.reasons.update(outcome)
            answer = frozenset(outcome)
            if answer not in self.answers:
                self.answers.add(answer)
                if 0 < len(message) <= LONGEST and len(self.seeds) < EXAMPLES:
                    self.seeds.append(message)


def hangs(_signal, _frame):
    raise AssertionError(f"a message among the last {BATCH} is read for more than {BATCH_S} s")


@pytest.fixture
def watchdog():
    former = signal.signal(signal.SIGPROF, hangs)
    yield lambda: signal.setitimer(signal.ITIMER_PROF, BATCH_S)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, former)


def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize(("seeds", "read", "least"), CASES.values(), ids=CASES)
def test_corrupt_messages_are_read_or_refused_in_bounded_time_and_memory(seeds, read, least, watchdog, request):
    fuzzer = Fuzzer(seeds, read)
    watchdog()
    fuzzer.feed(BATCH)  # fills the caches
    before_kb, started = peak_kb(), time.process_time()
    for _ in range(max(0, COUNT - TRACED) // BATCH):
        watchdog()
        fuzzer.feed(BATCH)
    took_s, grown_kb = time.process_time() - started, peak_kb() - before_kb
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(min(COUNT, TRACED) // BATCH):
            watchdog()
            fuzzer.feed(BATCH)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    reasons = {str(outcome) for outcome in fuzzer.reasons}
    print(  # noqa: T201
        f"\n{request.node.callspec.id}: {COUNT} messages, seed {SEED}: {len(reasons)} outcomes in {len(fuzzer.answers)} "
        f"combinations, {took_s:.0f} s, peak + {grown_kb} kB, left {after - before} B"
    )
    assert grown_kb < PEAK_KB
    assert after - before < GROWTH
    assert "accepted" in reasons
    assert len(reasons) >= least, reasons
