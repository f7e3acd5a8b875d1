"""The kernel's IPVS as a data plane: its table by generic netlink, its connections by /proc."""

from relevo.planes.ipvs.plane import IpvsPlane, capabilities_of_ipvs, unavailable_reason

__all__ = ["IpvsPlane", "capabilities_of_ipvs", "unavailable_reason"]
