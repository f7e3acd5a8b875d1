"""From the messages of workers to alerts, and to the trackers of virtual servers."""

from __future__ import annotations

from relevo.alerts.dispatch import Dispatcher
from relevo.daemon.messages import GroupEvent, NoticeEvent, QuorumEvent, ServerEvent, ServerFound, ServiceFound, ShutdownNotice
from relevo.daemon.trackers import TrackerDriver

Event = NoticeEvent | GroupEvent | ServerEvent | ServerFound | QuorumEvent | ServiceFound | ShutdownNotice


def alert(dispatcher: Dispatcher, trackers: TrackerDriver, message: Event) -> None:
    """Pass a message on."""
    match message:
        case NoticeEvent(name=name, what=what, priority=priority):
            dispatcher.notice(name, what, priority)
        case GroupEvent(name=name, state=state):
            dispatcher.group(name, state)
        case ServerEvent():
            dispatcher.server(message.service, message.server, message.up, message.transition, message.check, message.reason)
        case ServerFound(service=service, server=server):
            dispatcher.server_found(service, server)
        case QuorumEvent(service=service, up=up, weight=weight):
            trackers.service_changed(service, up)
            dispatcher.quorum(service, up, weight)
        case ServiceFound(service=service, up=up):
            trackers.service_changed(service, up)
        case ShutdownNotice(servers=servers):
            dispatcher.shutdown(servers)
