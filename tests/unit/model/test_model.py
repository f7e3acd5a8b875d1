import msgspec
import pytest
from rich.pretty import pretty_repr

from relevo.model import (
    Authentication,
    AuthenticationType,
    Configuration,
    Endpoint,
    Forwarding,
    GlobalDefs,
    HttpCheck,
    Protocol,
    RealServer,
    SyncDaemon,
    SyncGroup,
    TcpCheck,
    Url,
    VirtualAddress,
    VirtualServer,
    VrrpInstance,
)
from relevo.model.checks import CheckTiming

TIMING = CheckTiming(delay_loop_s=6.0, retry=1, delay_before_retry_s=1.0, warmup_s=0.0, alpha=False)
HERE = Endpoint("192.0.2.1", 80)
SECRET = Authentication(AuthenticationType.PASS, "hush")


def http(*, tls: bool) -> HttpCheck:
    return HttpCheck(timing=TIMING, connect=HERE, connect_timeout_s=5.0, urls=(Url(path="/"),), tls=tls)


TCP = TcpCheck(timing=TIMING, connect=HERE, connect_timeout_s=5.0, bind=Endpoint("192.0.2.9", 4000))
SERVICE = VirtualServer(
    endpoint=HERE,
    protocol=Protocol.TCP,
    forwarding=Forwarding.DR,
    real_servers=(RealServer(endpoint=Endpoint("10.0.0.1", 80), checks=(TCP, http(tls=True), http(tls=False))),),
)
WHOLE = Configuration(
    global_defs=GlobalDefs(router_id="r", lvs_sync_daemon=SyncDaemon(interface="eth0")),
    vrrp_instances=(
        VrrpInstance(
            name="VI",
            interface="eth0",
            virtual_router_id=1,
            authentication=SECRET,
            addresses=(VirtualAddress(address="192.0.2.1"),),
        ),
    ),
    sync_groups=(SyncGroup(name="G", members=("VI",)),),
    virtual_servers=(SERVICE,),
)


@pytest.mark.parametrize(
    ("endpoint", "text", "formatted"),
    [
        (Endpoint("192.0.2.1", 80), "192.0.2.1:80", "[192.0.2.1]:tcp:80"),
        (Endpoint("192.0.2.1"), "192.0.2.1:0", "[192.0.2.1]:tcp:0"),
        (Endpoint("2001:db8::1", 80), "[2001:db8::1]:80", "[2001:db8::1]:tcp:80"),
    ],
)
def test_endpoints_are_spelled_plainly_and_as_keepalived_does(endpoint, text, formatted):
    assert str(endpoint) == text
    assert endpoint.formatted(Protocol.TCP) == formatted


def test_endpoints_are_ordered_and_can_be_keys():
    assert sorted([Endpoint("b", 1), Endpoint("a", 2), Endpoint("a", 1)]) == [
        Endpoint("a", 1),
        Endpoint("a", 2),
        Endpoint("b", 1),
    ]
    assert {HERE: 1}[Endpoint("192.0.2.1", 80)] == 1


def test_a_service_is_named_as_keepalived_names_it():
    assert SERVICE.name == "[192.0.2.1]:tcp:80"
    assert msgspec.structs.replace(SERVICE, protocol=Protocol.UDP).name == "[192.0.2.1]:udp:80"


@pytest.mark.parametrize(("check", "name"), [(TCP, "TCP_CHECK"), (http(tls=False), "HTTP_GET"), (http(tls=True), "SSL_GET")])
def test_checks_are_named_by_their_keyword(check, name):
    assert check.name == name


def test_a_virtual_address_is_spelled_with_its_prefix():
    assert str(VirtualAddress(address="192.0.2.1", prefix_length=24)) == "192.0.2.1/24"


def test_a_whole_configuration_survives_json_and_msgpack():
    assert msgspec.json.decode(msgspec.json.encode(WHOLE), type=Configuration) == WHOLE
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(WHOLE), type=Configuration) == WHOLE


def test_a_configuration_is_frozen_and_can_be_hashed():
    with pytest.raises(AttributeError):
        WHOLE.global_defs = GlobalDefs()
    assert hash(WHOLE) == hash(msgspec.structs.replace(WHOLE))


def test_nothing_declared_is_the_default():
    assert Configuration() == Configuration(global_defs=GlobalDefs(), vrrp_instances=(), sync_groups=(), virtual_servers=())


@pytest.mark.parametrize("formatted", [repr(SECRET), str(SECRET), repr(WHOLE), f"{SECRET}"])
def test_a_secret_is_in_no_repr(formatted):
    assert "hush" not in formatted
    assert "***" in formatted


def test_a_secret_is_not_in_what_rich_prints():
    assert "hush" not in pretty_repr(WHOLE)
