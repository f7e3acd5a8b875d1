/* SPDX-License-Identifier: Apache-2.0 */
/* Counters: reasons and traffic per CPU, connections of a server, and its overload flag. */
#pragma once
#include "packet.h"

INLINE void count(enum reason reason)
{
	__u32 key = reason;
	__u64 *value = bpf_map_lookup_elem(&reasons, &key);

	if (value)
		*value += 1;
}

enum direction { TO_SERVER, TO_CLIENT };

INLINE void count_traffic(__u32 server, enum direction direction, __u32 bytes)
{
	struct counters *c = bpf_map_lookup_elem(&traffic, &server);

	if (!c)
		return;
	if (direction == TO_SERVER) {
		c->packets_in += 1;
		c->bytes_in += bytes;
	} else {
		c->packets_out += 1;
		c->bytes_out += bytes;
	}
}

INLINE void count_connection(__u32 server)
{
	struct counters *c = bpf_map_lookup_elem(&traffic, &server);

	if (c)
		c->connections += 1;
}

/*
 * Set at the upper threshold, cleared below the lower one, or below three quarters of the upper if there is no lower one
 * (IPVS). It is checked when a connection is added or removed, so two CPUs at once may exceed the limit by one.
 */
INLINE void update_overload(struct server *s)
{
	__u32 held, limit;

	if (likely(!s->upper)) {
		if (s->overloaded)
			s->overloaded = 0;
		return;
	}
	held = s->active + s->inactive;
	limit = s->lower ? s->lower : s->upper - s->upper / 4;
	if (held >= s->upper)
		s->overloaded = 1;
	else if (s->overloaded && held < limit)
		s->overloaded = 0;
}

/*
 * Whether `s` counts the connections that were made in `generation`: it is that server, or the free slot that it left. A server
 * that returns to its slot finds the number of its connections right.
 */
INLINE int counts_for(const struct server *s, __u32 generation)
{
	return (s->generation & ~1U) == generation;
}

#define ADD(counter, number) __sync_fetch_and_add(&(counter), number)

INLINE void count_in(struct server *s, int flags)
{
	if (flags & CONNECTION_TEMPLATE) {
		ADD(s->templates, 1);
		return;
	}
	if (flags & CONNECTION_ACTIVE)
		ADD(s->active, 1);
	else
		ADD(s->inactive, 1);
	update_overload(s);
}

INLINE void count_out(struct server *s, int flags)
{
	if (flags & CONNECTION_TEMPLATE) {
		ADD(s->templates, -1);
		return;
	}
	if (flags & CONNECTION_ACTIVE)
		ADD(s->active, -1);
	else
		ADD(s->inactive, -1);
	update_overload(s);
}
