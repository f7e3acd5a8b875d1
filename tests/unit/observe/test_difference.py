"""``differences``: nothing between files of one meaning, the field otherwise, and never a secret."""

from __future__ import annotations

import pytest

from relevo.config import compile_text
from relevo.observe.difference import differences

FILE = """
global_defs {
  router_id A
}
vrrp_instance V {
  interface eth0
  virtual_router_id 1
  authentication {
    auth_type PASS
    auth_pass secret
  }
  virtual_ipaddress {
    10.0.0.1
    10.0.0.2
  }
}
virtual_server 10.0.0.1 80 {
  lb_algo rr
  lb_kind NAT
  protocol TCP
  real_server 10.0.0.5 80 {
    TCP_CHECK {
    }
  }
  real_server 10.0.0.6 80 {
  }
}
"""


def shown(former: str, latter: str) -> list[str]:
    return [str(each) for each in differences(*(compile_text(text, "f").configuration for text in (former, latter)))]


def test_comments_order_and_spelling_do_not_count():
    other = FILE.replace("lb_algo rr", "lvs_sched rr # round robin").replace("router_id A", 'router_id "A"\n\n')
    blocks = other.partition("vrrp_instance")
    assert shown(FILE, other) == shown(FILE, blocks[1] + blocks[2] + blocks[0]) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("router_id A", "router_id B", ["~ global_defs router_id: A → B"]),
        ("10.0.0.6 80 {", "10.0.0.6 80 {\nweight 3", ["~ virtual_servers 10.0.0.1:80 real_servers 10.0.0.6:80 weight: 1 → 3"]),
        ("10.0.0.6 80", "10.0.0.7 80", [
            "- virtual_servers 10.0.0.1:80 real_servers 10.0.0.6:80", "+ virtual_servers 10.0.0.1:80 real_servers 10.0.0.7:80",
        ]),
        ("    10.0.0.2\n", "", ["- vrrp_instances V addresses 10.0.0.2"]),
        ("    10.0.0.1\n    10.0.0.2\n", "    10.0.0.2\n    10.0.0.1\n", [
            "~ vrrp_instances V addresses: 10.0.0.1 10.0.0.2 → 10.0.0.2 10.0.0.1",
        ]),
        ("lb_algo rr", "lb_algo rr\nalpha", [
            "~ virtual_servers 10.0.0.1:80 alpha: off → on",
            "~ virtual_servers 10.0.0.1:80 real_servers 10.0.0.5:80 checks #1 timing alpha: off → on",
        ]),
    ],
)  # fmt: skip
def test_a_difference_names_its_field(old, new, expected):
    assert old in FILE
    assert shown(FILE, FILE.replace(old, new)) == expected


def test_secrets_are_not_shown():
    changed = FILE.replace("auth_pass secret", "auth_pass hidden")
    without = FILE.replace("auth_type PASS", "").replace("auth_pass secret", "")
    found = shown(FILE, changed) + shown(FILE, without) + shown(without, FILE)
    assert found
    assert not any(secret in line for line in found for secret in ("secret", "hidden"))
    assert found[0] == "~ vrrp_instances V authentication password: *** → another ***"
