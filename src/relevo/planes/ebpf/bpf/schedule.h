/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schedulers of IPVS. Servers are listed newest first; servers with weight 0 or overload are skipped; on ties the first
 * in the list wins. rr and wrr update their state without a lock: two CPUs that pick at the same time may pick the same
 * server, which is harmless, and no CPU waits.
 *
 * Hash schedulers read a table that the loader fills (`relevo.schedulers` has the algorithms).
 */
#pragma once
#include "count.h"
#include "hash.h"

/* The verifier checks every iteration of a loop, but a global function only once: long lists are walked in parts. */
#define PART 64
/* Of one service. */
#define MAX_SERVERS 4096
_Static_assert(MAX_SERVERS % PART == 0, "a list is walked in whole parts");
#define MAGLEV_KEY_1 2654435761ULL /* both words of the key, as in the kernel */

struct server_list {
	__u32 first, count;
};

INLINE struct server_list server_list_of(__u64 range)
{
	struct server_list r = {.first = (__u32)(range >> 32), .count = (__u32)range};

	if (r.count > MAX_SERVERS)
		r.count = MAX_SERVERS;
	return r;
}

INLINE struct server *server_at(__u32 place, __u32 *number)
{
	__u32 *found = bpf_map_lookup_elem(&server_lists, &place);

	if (!found)
		return 0;
	*number = *found;
	return bpf_map_lookup_elem(&servers, number);
}

INLINE int eligible(const struct server *s)
{
	return s->weight && !s->overloaded;
}

INLINE struct service *service_at(__u32 number)
{
	return bpf_map_lookup_elem(&services, &number);
}

/* rr: the next eligible server after the last pick, among the next PART; `walk.place` counts those seen. */
GLOBAL __u32 rr_part(__u32 service_number)
{
	struct service *service = service_at(service_number);
	struct scratch *work = the_scratch(0);
	__u32 place, number, i;
	struct server_list r;

	if (!service || !work)
		return 0;
	r = server_list_of(service->server_list);
	for (i = 0; i < PART; i++) {
		struct server *s;

		if (work->walk.place >= r.count)
			break;
		place = (service->cursor + work->walk.place++) % r.count;
		s = server_at(r.first + place, &number);
		if (s && eligible(s)) {
			service->cursor = place + 1;
			return number;
		}
	}
	return 0;
}

/* rr: one round. */
GLOBAL __u32 pick_rr(__u32 service_number)
{
	struct scratch *work = the_scratch(0);
	__u32 number, i;

	if (!work)
		return 0;
	work->walk.place = 0;
	for (i = 0; i < MAX_SERVERS / PART; i++) {
		number = rr_part(service_number);
		if (number || work->walk.place != (i + 1) * PART)
			return number;
	}
	return 0;
}

/* Lowers `threshold` by steps of `step` until a weight of `heaviest` reaches it. */
INLINE __u32 lowered(__u32 threshold, __u32 heaviest, __u32 step)
{
	if (threshold <= heaviest)
		return threshold;
	return threshold - (threshold - heaviest + step - 1) / step * step;
}

/* wrr: the first of the next PART servers whose weight is at least the threshold, or 0. */
GLOBAL __u32 wrr_part(__u32 service_number)
{
	struct service *service = service_at(service_number);
	struct scratch *work = the_scratch(0);
	struct server_list r;
	__u32 number, i;

	if (!service || !work)
		return 0;
	r = server_list_of(service->server_list);
	for (i = 0; i < PART; i++) {
		struct server *s;

		if (work->walk.place >= r.count)
			break;
		s = server_at(r.first + work->walk.place++, &number);
		if (!s || !eligible(s))
			continue;
		if (s->weight > work->walk.heaviest)
			work->walk.heaviest = s->weight;
		if (s->weight >= work->walk.threshold)
			return number;
	}
	return 0;
}

/* wrr: the first such server up to the end of the list, or 0. */
GLOBAL __u32 walk_to_end(__u32 service_number)
{
	struct scratch *work = the_scratch(0);
	__u32 number, first, i;

	if (!work)
		return 0;
	for (i = 0; i < MAX_SERVERS / PART; i++) {
		first = work->walk.place;
		number = wrr_part(service_number);
		if (number || work->walk.place != first + PART)
			return number;
	}
	return 0;
}

/*
 * wrr: continues after the last pick; at the end of the list the threshold is lowered by a step. When a whole round finds no
 * server, the threshold is lowered at once to the heaviest eligible weight, where the kernel's walk would end. The walk's
 * state is in a map, where the verifier does not track it.
 */
GLOBAL __u32 pick_wrr(__u32 service_number)
{
	struct service *service = service_at(service_number);
	struct scratch *work = the_scratch(0);
	__u32 number, round;

	if (!service || !work || !service->ceiling || !service->step)
		return 0;
	work->walk.place = service->cursor;
	work->walk.threshold = service->threshold;
	work->walk.heaviest = 0;
	for (round = 0; round < 3; round++) {
		number = walk_to_end(service_number);
		if (number) {
			service->cursor = work->walk.place;
			service->threshold = work->walk.threshold;
			return number;
		}
		work->walk.place = 0;
		work->walk.threshold = work->walk.threshold > service->step ? work->walk.threshold - service->step : service->ceiling;
		if (round == 1)
			work->walk.threshold = lowered(work->walk.threshold, work->walk.heaviest, service->step);
	}
	return 0;
}

/*
 * A server's load, compared in proportion to its weight. For lc and wlc an active connection counts as 256 inactive ones. sed
 * and nq count active connections only; unlike the kernel they also count UDP sessions, which are never active there, so
 * that one server would get them all.
 */
INLINE __u64 load_of(const struct server *s, __u32 scheduler, __u8 protocol)
{
	if (scheduler == SCHEDULER_LC || scheduler == SCHEDULER_WLC)
		return (__u64)s->active * 256 + s->inactive;
	return s->active + (protocol == IPPROTO_UDP ? s->inactive : 0) + 1;
}

/* Compares the next PART servers with the best so far. Returns a server only if it ends the search at once. */
GLOBAL __u32 least_part(__u32 service_number)
{
	struct service *service = service_at(service_number);
	struct scratch *work = the_scratch(0);
	struct server_list r;
	__u32 number, i;

	if (!service || !work)
		return 0;
	r = server_list_of(service->server_list);
	for (i = 0; i < PART; i++) {
		/* Read in every iteration, or the verifier would check each algorithm separately over the whole list. */
		__u32 scheduler = *(volatile __u32 *)&service->scheduler;
		struct server *s;
		__u64 load, weight;

		if (work->walk.place >= r.count)
			break;
		s = server_at(r.first + work->walk.place++, &number);
		if (!s || !eligible(s))
			continue;
		load = load_of(s, scheduler, service->protocol);
		weight = scheduler == SCHEDULER_LC ? 1 : s->weight;
		if (scheduler == SCHEDULER_NQ && load == 1)
			return number;
		if (scheduler == SCHEDULER_OVF && load > weight + 1)
			continue;
		if (scheduler == SCHEDULER_FO || scheduler == SCHEDULER_OVF)
			load = 1;
		if (work->walk.best && work->walk.best_load * weight <= load * work->walk.best_weight)
			continue;
		work->walk.best = number;
		work->walk.best_load = load;
		work->walk.best_weight = weight;
	}
	return 0;
}

/*
 * lc wlc sed nq: the least load in proportion to weight (lc: without weights); nq picks the first idle server.
 * fo ovf: the greatest weight, as the least proportion of an equal load; ovf skips servers with more connections than weight.
 */
GLOBAL __u32 pick_least(__u32 service_number)
{
	struct scratch *work = the_scratch(0);
	__u32 number, i;

	if (!work)
		return 0;
	work->walk.best = work->walk.place = 0;
	for (i = 0; i < MAX_SERVERS / PART; i++) {
		number = least_part(service_number);
		if (number)
			return number;
		if (work->walk.place != (i + 1) * PART)
			break;
	}
	return work->walk.best;
}

INLINE __u32 eligible_at(__u32 place)
{
	__u32 number = 0;
	struct server *s = server_at(place, &number);

	return s && eligible(s) ? number : 0;
}

/* dh and sh: 256 buckets by a multiplicative hash; sh-fallback tries further buckets. */
GLOBAL __u32 pick_hash(__u32 service_number, __u32 value)
{
	struct service *service = service_at(service_number);
	__u32 bucket = hash_32(value, 8), first, number, i;

	if (!service || !(__u32)service->table)
		return 0;
	first = (__u32)(service->table >> 32);
	number = eligible_at(first + bucket);
	if (number || !(service->flags & SERVICE_FALLBACK))
		return number;
	for (i = 0; i < 256; i++) {
		number = eligible_at(first + ((2 * bucket + i) & 255));
		if (number)
			return number;
	}
	return 0;
}

#define MAGLEV_TRIES 64 /* the kernel tries every slot; with half of the servers down, this many fail once in 10^19 */

/* mh: a slot of the Maglev table; mh-fallback hashes again. */
GLOBAL __u32 pick_maglev(__u32 service_number, __u32 value)
{
	struct service *service = service_at(service_number);
	__u32 first, size, number, i, start;

	if (!service || !(__u32)service->table)
		return 0;
	first = (__u32)(service->table >> 32);
	size = (__u32)service->table;
	start = maglev_hash(value, MAGLEV_KEY_1) % size;
	number = eligible_at(first + start);
	if (number || !(service->flags & SERVICE_FALLBACK))
		return number;
	for (i = 0; i < MAGLEV_TRIES; i++) {
		number = eligible_at(first + maglev_hash(value + (i + start) % size, MAGLEV_KEY_1) % size);
		if (number)
			return number;
	}
	return 0;
}

/* The index of the server for a new connection, 0 when no server is eligible. */
INLINE __u32 pick(const struct service *service, __u32 number, const struct packet *p)
{
	__u32 port = service->flags & SERVICE_HASH_PORT ? be16(p->source_port) : 0;

	switch (service->scheduler) {
	case SCHEDULER_RR:
		return pick_rr(number);
	case SCHEDULER_WRR:
		return pick_wrr(number);
	case SCHEDULER_SH:
		return pick_hash(number, fold_address(&p->source) + port);
	case SCHEDULER_DH:
		return pick_hash(number, fold_address(&p->destination));
	case SCHEDULER_MH:
		return pick_maglev(number, fold_address(&p->source) + port);
	case SCHEDULER_NONE:
		return 0;
	}
	return pick_least(number);
}
