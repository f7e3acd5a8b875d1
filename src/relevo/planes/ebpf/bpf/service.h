/* SPDX-License-Identifier: Apache-2.0 */
/* Finds a packet's service: by firewall mark, then address and port, then address alone (the order of IPVS). */
#pragma once
#include "packet.h"

/* Whether a service may have this address. A false positive costs a look-up. */
INLINE int maybe_virtual(const struct settings *s, const struct address *a)
{
	return (s->flags & SETTING_MARKS) || in_filter(s->virtual_filter, a);
}

/* Whether a server may have this address. */
INLINE int maybe_server(const struct settings *s, const struct address *a)
{
	return in_filter(s->server_filter, a);
}

INLINE struct service *service_by_key(const struct service_key *key, __u32 *number)
{
	__u32 *found = bpf_map_lookup_elem(&service_index, key);

	if (!found)
		return 0;
	*number = *found;
	return bpf_map_lookup_elem(&services, number);
}

/* The index of the packet's service, or NOWHERE. `mark` is the frame's firewall mark. */
GLOBAL __u32 find_service(__u32 mark)
{
	struct packet *p = the_packet();
	struct service_key key;
	struct service *s = 0;
	__u32 number = NOWHERE;

	if (!p)
		return NOWHERE;
	__builtin_memset(&key, 0, sizeof(key));
	if (mark) {
		key.address.half[0] = mark;
		key.family = p->family;
		s = service_by_key(&key, &number);
		key.family = 0;
	}
	if (!s) {
		key.address = p->destination;
		key.port = p->destination_port;
		key.protocol = p->protocol;
		s = service_by_key(&key, &number);
	}
	if (!s) {
		key.port = 0;
		s = service_by_key(&key, &number);
	}
	if (!s || !(s->flags & SERVICE_USED))
		return NOWHERE;
	return number;
}
