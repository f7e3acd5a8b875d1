/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that the loader runs by BPF_PROG_TEST_RUN: changes that need the locks of the table are made in the kernel. The
 * request is the packet; the program writes its result into it, and the loader reads it back.
 */
#include "sync_export.h"

#define SWEEP_BUCKETS 64 /* per run; the loader repeats the run until the whole table is done */

struct sweep_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u32 next;             /* bucket to continue with */
	__u32 deleted;          /* entries deleted so far */
};

/* Deletes expired entries, so that the counters are exact. */
SEC("tc")
int relevo_sweep(struct __sk_buff *frame)
{
	struct sweep_request *request = frame_begin(frame);
	__u32 bucket, now = (__u32)bpf_jiffies64(), deleted = 0, i, slot;

	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	bucket = request->next;
	for (i = 0; i < SWEEP_BUCKETS; i++, bucket++) {
		struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);

		if (!b)
			break;
		if (!*(__u64 *)b->tag)
			continue;
		for (slot = 0; slot < BUCKET_SLOTS; slot++) {
			if (b->tag[slot] && is_expired(&b->slot[slot], now))
				deleted += delete(bucket * BUCKET_SLOTS + slot, b->slot[slot].client_port, 1);
		}
	}
	request = frame_begin(frame);
	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->next = bucket;
	request->deleted += deleted;
	return TC_ACT_OK;
}

struct clock_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u64 jiffies;
};

/* Returns the time in jiffies, which user space cannot read otherwise. */
SEC("tc")
int relevo_clock(struct __sk_buff *frame)
{
	struct clock_request *request = frame_begin(frame);

	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->jiffies = bpf_jiffies64();
	return TC_ACT_OK;
}

struct delete_request {
	__u8 ethernet[ETHERNET];
	__be16 client_port;
	__u32 place;
	__u32 done;
};

/* Deletes one entry. */
SEC("tc")
int relevo_delete(struct __sk_buff *frame)
{
	struct delete_request *request = frame_begin(frame);
	int done;

	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	done = delete(request->place, request->client_port, 1);
	request = frame_begin(frame);
	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->done = done;
	return TC_ACT_OK;
}

#define INSERT_MAX 32 /* per run: a request may be one page long at most */

enum outcome { NO_ROOM, INSERTED, UPDATED, IGNORED };

struct insert_item {
	struct connection connection; /* `expires`: jiffies from now */
	__u32 place;
	__u32 outcome;
};

struct insert_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u32 count;
	__u32 reserved_2;
	struct insert_item item[INSERT_MAX];
};

/* Finds the entry with the same addresses and ports as the scratch's `fresh`. */
INLINE int find_same(const struct settings *settings, struct scratch *work, __u32 now, struct place *found)
{
	const struct connection *fresh = &work->fresh;
	struct packet p = {};

	p.now = now;
	if (fresh->flags & CONNECTION_TEMPLATE)
		return find(settings, &p, fresh, template_hash(settings, fresh), TEMPLATE, found);
	p.source = fresh->client;
	p.destination = fresh->virtual;
	p.source_port = fresh->client_port;
	p.destination_port = fresh->virtual_port;
	p.protocol = fresh->protocol;
	return find_forward(settings, &p, found);
}

/* Updates the entry at `found` from the scratch's `fresh`, which has the same server. */
INLINE void update(struct place *found, const struct scratch *work)
{
	const struct connection *fresh = &work->fresh;
	struct connection *e = found->entry;
	__u32 was, is, number;
	struct server *s;

	bpf_spin_lock(&found->bucket->lock);
	was = e->flags;
	is = (was & ~CONNECTION_ACTIVE) | (fresh->flags & (CONNECTION_ACTIVE | CONNECTION_ASSURED)) | CONNECTION_FOREIGN;
	e->flags = is;
	e->last_sync = 0;
	e->state = fresh->state;
	e->expires = fresh->expires;
	bpf_spin_unlock(&found->bucket->lock);
	number = fresh->server;
	s = bpf_map_lookup_elem(&servers, &number);
	if (s && (was ^ is) & CONNECTION_ACTIVE) {
		count_out(s, was);
		count_in(s, is);
	}
}

/*
 * Inserts or updates the entry of the scratch's `fresh`; its slot is left in the scratch. If the connection exists with
 * another server, an active `fresh` replaces it and an inactive one is ignored, as IPVS does with synced connections.
 */
GLOBAL int upsert(__u32 now)
{
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(1);
	struct place found;
	struct server *s;
	__u32 number;

	if (!settings || !work)
		return NO_ROOM;
	if (find_same(settings, work, now, &found)) {
		work->place = found.number;
		number = found.entry->server;
		s = bpf_map_lookup_elem(&servers, &number);
		if (number == work->fresh.server && found.entry->generation == work->fresh.generation) {
			update(&found, work);
			return UPDATED;
		}
		if (s && s->generation == found.entry->generation && !(work->fresh.flags & (CONNECTION_ACTIVE | CONNECTION_TEMPLATE)))
			return IGNORED;
		delete(found.number, found.entry->client_port, 1);
	}
	work->place = insert(now, 1);
	return work->place == NOWHERE ? NO_ROOM : INSERTED;
}

/* Inserts connections that no packet opened: those that a peer has synced. */
SEC("tc")
int relevo_insert(struct __sk_buff *frame)
{
	struct insert_request *request = frame_begin(frame);
	__u32 i, at, count, now = (__u32)bpf_jiffies64(), result[2];
	struct scratch *work = the_scratch(1);

	if ((void *)(request + 1) > frame_end(frame) || !work)
		return TC_ACT_SHOT;
	count = request->count;
	for (i = 0; i < INSERT_MAX && i < count; i++) {
		at = __builtin_offsetof(struct insert_request, item) + i * sizeof(struct insert_item);
		if (bpf_skb_load_bytes(frame, at, &work->fresh, sizeof(work->fresh)))
			return TC_ACT_SHOT;
		work->fresh.expires += now;
		result[1] = upsert(now);
		result[0] = work->place;
		if (bpf_skb_store_bytes(frame, at + sizeof(struct connection), result, sizeof(result), 0))
			return TC_ACT_SHOT;
	}
	return TC_ACT_OK;
}

struct sync_export_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u32 next;             /* bucket to continue with */
	__u32 exported;         /* entries written to the ring so far */
	__u32 limit;            /* a run does nothing once so many are exported */
	__u32 which;            /* enum sync_export_flag */
};

enum sync_export_flag {
	EXPORT_HALF_OPEN = 1 << 0,  /* also connections in SYN_RECV, for a peer that takes over */
	EXPORT_UNSYNCED = 1 << 1,   /* only entries that the peers lack, or would expire much earlier than this node */
};

/* Whether the peers lack an entry. They have what came from another director, as long as no packet used it since. */
INLINE int is_unsynced(const struct settings *s, const struct connection *e, __u32 now)
{
	__u32 timeout, left = e->expires - now, idle = 0;

	if (!e->last_sync)
		return !(e->flags & CONNECTION_FOREIGN);
	if (e->flags & CONNECTION_TEMPLATE) {
		timeout = persistence_of(e);
	} else {
		timeout = s->timeout[e->state & (TIMEOUTS - 1)];
		idle = left < timeout ? timeout - left : 0;
	}
	return ticks_since(e->last_sync, last_sync_time(s, now)) > in_ticks(s, idle) + in_ticks(s, timeout) / 8;
}

/* Exports the entry in slot `number` unless it has expired or is not to be synced. Returns an enum export_result. */
GLOBAL int export_unless_expired(__u32 number, __u32 now, __u32 which)
{
	const struct connection *e = at_place(number);
	struct settings *settings = the_settings();

	if (!e || !settings || is_expired(e, now) || e->flags & CONNECTION_FULLNAT)
		return NOTHING_TO_EXPORT;
	if (!can_sync(e) && !(which & EXPORT_HALF_OPEN && e->state == STATE_SYN_RECV))
		return NOTHING_TO_EXPORT;
	if (template_suffices(settings, e)) {
		if (!(which & EXPORT_HALF_OPEN))
			return NOTHING_TO_EXPORT;
	} else if (which & EXPORT_UNSYNCED && !is_unsynced(settings, e, now)) {
		return NOTHING_TO_EXPORT;
	}
	return export_connection(number, 1);
}

/* Exports every entry, for a peer that has none or that is about to take over. */
SEC("tc")
int relevo_sync_export(struct __sk_buff *frame)
{
	struct sync_export_request *request = frame_begin(frame);
	__u32 bucket, now = (__u32)bpf_jiffies64(), exported = 0, which, i, slot, done, full = 0;

	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	if (request->exported >= request->limit)
		return TC_ACT_OK;
	bucket = request->next;
	which = request->which;
	for (i = 0; i < SWEEP_BUCKETS && !full; i++, bucket++) {
		struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);

		if (!b)
			break;
		if (!*(__u64 *)b->tag)
			continue;
		for (slot = 0; slot < BUCKET_SLOTS; slot++) {
			if (!b->tag[slot])
				continue;
			done = export_unless_expired(bucket * BUCKET_SLOTS + slot, now, which);
			if (done == RING_FULL)
				full = 1;
			else
				exported += done; /* EXPORTED is 1: one more branch here, and verification takes too long */
		}
	}
	request = frame_begin(frame);
	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->next = full ? bucket - 1 : bucket; /* repeat this bucket when the ring has been read */
	request->exported = full ? request->limit : request->exported + exported;
	return TC_ACT_OK;
}

char terms[] SEC("license") = "Dual BSD/GPL";
