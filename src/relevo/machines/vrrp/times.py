"""Times that follow from the priority and the advert interval (RFC 9568 §6.1, RFC 3768 §6.1), in seconds."""

from __future__ import annotations


def skew_s(version: int, priority: int, advert_interval_s: float) -> float:
    """Return the skew time: the lower the priority, the longer. In version 2 it is a part of one second."""
    whole = 1.0 if version == 2 else advert_interval_s
    return (256 - priority) * whole / 256


def master_down_s(version: int, priority: int, advert_interval_s: float, adverts: int) -> float:
    """Return after how long without adverts the master counts as down; ``adverts`` is ``down_timer_adverts``."""
    return adverts * advert_interval_s + skew_s(version, priority, advert_interval_s)
