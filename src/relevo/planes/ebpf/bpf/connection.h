/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection table: 2^n buckets of eight slots. Both directions of a NAT connection hash by the client's address and
 * port, so that one entry serves both. A connection is stored in its first-choice bucket, or in its second choice when the
 * first is full; `spilled` says whether a look-up must read the second. Readers take no lock; writers of a slot's tuple,
 * state or tag hold the bucket's lock.
 *
 * A new connection may reuse the slot of an expired entry. The sweep (control.bpf.c) only keeps the counters exact.
 */
#pragma once
#include "count.h"
#include "hash.h"

struct place {
	struct bucket *bucket;
	struct connection *entry;
	__u32 number;           /* bucket * BUCKET_SLOTS + slot */
};

INLINE __u64 connection_hash(const struct settings *s, const struct address *client, __be16 port, __u8 protocol)
{
	__u32 last = (__u32)port << 8 | protocol;
	struct sip sip;

	if (likely(is_v4(client)))
		return hash_pair(get_v4(client), last, s->key[0], s->key[1]);
	sip_begin(&sip, s->key[0], s->key[1]);
	sip_word(&sip, client->half[0]);
	sip_word(&sip, client->half[1]);
	return sip_end(&sip, last);
}

/* Templates hash by client and service: no look-up from the server's side needs them. */
INLINE __u64 template_hash(const struct settings *s, const struct connection *t)
{
	struct sip sip;

	sip_begin(&sip, s->key[0], s->key[1]);
	sip_word(&sip, t->client.half[0]);
	sip_word(&sip, t->client.half[1]);
	sip_word(&sip, t->virtual.half[0]);
	sip_word(&sip, t->virtual.half[1]);
	return sip_end(&sip, (__u32)t->virtual_port << 8 | t->protocol);
}

INLINE __u64 entry_hash(const struct settings *s, const struct connection *e)
{
	if (e->flags & CONNECTION_TEMPLATE)
		return template_hash(s, e);
	return connection_hash(s, &e->client, e->client_port, e->protocol);
}

INLINE __u32 first_choice(const struct settings *s, __u64 hash)
{
	return (__u32)hash & s->bucket_mask;
}

INLINE __u32 second_choice(const struct settings *s, __u64 hash)
{
	__u32 second = (__u32)(hash >> 24) & s->bucket_mask;

	return second == first_choice(s, hash) ? second ^ 1 : second;
}

INLINE __u8 tag_of(__u64 hash)
{
	return (__u8)(hash >> 56) | 1;
}

/* A template does not expire while it controls connections. */
INLINE int is_expired(const struct connection *e, __u32 now)
{
	return past(e->expires, now) && !((e->flags & CONNECTION_TEMPLATE) && e->master);
}

INLINE int matches_forward(const struct connection *e, const struct packet *p)
{
	return e->client_port == p->source_port && e->virtual_port == p->destination_port && e->protocol == p->protocol &&
	       same_address(&e->client, &p->source) && same_address(&e->virtual, &p->destination) &&
	       !(e->flags & CONNECTION_TEMPLATE);
}

/* The destination port of packets to `e`'s server. */
INLINE __be16 server_port(const struct connection *e, const struct server *s)
{
	return s->port && !(e->flags & CONNECTION_KEEP_PORT) ? s->port : e->virtual_port;
}

INLINE int matches_reverse(const struct connection *e, const struct packet *p)
{
	struct server *s;
	__u32 key;

	if (e->client_port != p->destination_port || e->protocol != p->protocol || !same_address(&e->client, &p->destination) ||
	    (e->flags & (CONNECTION_TEMPLATE | CONNECTION_FULLNAT)))
		return 0;
	key = e->server;
	s = bpf_map_lookup_elem(&servers, &key);
	return s && same_address(&s->address, &p->source) && server_port(e, s) == p->source_port &&
	       s->generation == e->generation;
}

INLINE int matches_template(const struct connection *e, const struct connection *wanted)
{
	return (e->flags & CONNECTION_TEMPLATE) && same_address(&e->client, &wanted->client) &&
	       same_address(&e->virtual, &wanted->virtual) && e->virtual_port == wanted->virtual_port &&
	       e->protocol == wanted->protocol;
}

enum lookup { FORWARD, REVERSE, TEMPLATE };

/* Searches a bucket for the entry of `p` or, for a template, of `wanted`. Returns the slot, or BUCKET_SLOTS. */
INLINE int scan(struct bucket *b, __u8 tag, const struct packet *p, const struct connection *wanted, enum lookup lookup)
{
	int i;

	for (i = 0; i < BUCKET_SLOTS; i++) {
		struct connection *e = &b->slot[i];

		if (b->tag[i] != tag)
			continue;
		if (is_expired(e, p->now))
			continue; /* a newer entry may be in a later slot */
		if (lookup == FORWARD ? matches_forward(e, p) : lookup == REVERSE ? matches_reverse(e, p) : matches_template(e, wanted))
			return i;
	}
	return BUCKET_SLOTS;
}

/*
 * Finds the entry under `hash` that has not expired: the packet's, in either direction, or the template `wanted`. Returns
 * false when there is none.
 */
INLINE int find(const struct settings *s, const struct packet *p, const struct connection *wanted, __u64 hash, enum lookup lookup,
		struct place *found)
{
	__u32 bucket = first_choice(s, hash);
	struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);
	int slot;

	if (!b)
		return 0;
	slot = scan(b, tag_of(hash), p, wanted, lookup);
	if (slot == BUCKET_SLOTS) {
		if (likely(!b->spilled))
			return 0;
		bucket = second_choice(s, hash);
		b = bpf_map_lookup_elem(&buckets, &bucket);
		if (!b)
			return 0;
		slot = scan(b, tag_of(hash), p, wanted, lookup);
		if (slot == BUCKET_SLOTS)
			return 0;
	}
	slot &= BUCKET_SLOTS - 1;
	found->bucket = b;
	found->entry = &b->slot[slot];
	found->number = bucket * BUCKET_SLOTS + slot;
	return 1;
}

INLINE int find_forward(const struct settings *s, const struct packet *p, struct place *found)
{
	return find(s, p, 0, connection_hash(s, &p->source, p->source_port, p->protocol), FORWARD, found);
}

INLINE int find_reverse(const struct settings *s, const struct packet *p, struct place *found)
{
	return find(s, p, 0, connection_hash(s, &p->destination, p->destination_port, p->protocol), REVERSE, found);
}

/* The entry in slot `number`, or null. */
INLINE struct connection *at_place(__u32 number)
{
	__u32 bucket = number / BUCKET_SLOTS, slot = number % BUCKET_SLOTS;
	struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);

	if (!b || !b->tag[slot])
		return 0;
	return &b->slot[slot];
}

/* The template that `master` names for `c`, or null. Another entry may have taken its slot since. */
INLINE struct connection *template_of(const struct connection *c, __u32 master)
{
	struct connection *t = master ? at_place(master - 1) : 0;

	if (!t || !(t->flags & CONNECTION_TEMPLATE) || !t->master || t->server != c->server || t->generation != c->generation)
		return 0;
	return t;
}

INLINE void translation_of(const struct connection *c, const struct server *s, struct translation_key *key)
{
	__u32 number = c->snat_address;
	struct address *local = bpf_map_lookup_elem(&snat_addresses, &number);

	__builtin_memset(key, 0, sizeof(*key));
	if (local)
		key->local = *local;
	key->remote = s->address;
	key->remote_port = server_port(c, s);
	key->local_port = c->local_port;
	key->protocol = c->protocol;
}

/*
 * Corrects counters, reserved ports and the template after an entry was deleted. The scratch's `former` is a copy of the
 * entry; `number` is the slot that it had.
 */
GLOBAL int on_delete(__u32 number, __u32 which)
{
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(which);
	struct connection *former, *template;
	struct server *server;
	__u32 key, first;

	if (!settings || !work)
		return 0;
	former = &work->former;
	first = first_choice(settings, entry_hash(settings, former));
	if (first != number / BUCKET_SLOTS) {
		struct bucket *b = bpf_map_lookup_elem(&buckets, &first);

		if (b)
			ADD(b->spilled, -1);
	}
	key = former->server;
	server = bpf_map_lookup_elem(&servers, &key);
	if (server) {
		if (counts_for(server, former->generation))
			count_out(server, former->flags);
		if (former->flags & CONNECTION_FULLNAT) {
			translation_of(former, server, &work->translation);
			bpf_map_delete_elem(&translations, &work->translation);
		}
	}
	if (former->flags & CONNECTION_TEMPLATE)
		return 0;
	template = template_of(former, former->master);
	if (template)
		ADD(template->master, -1);
	return 0;
}

/*
 * Writes `work->fresh` into a slot of a bucket, whose lock the caller holds. Copies the replaced entry to `work->former`; its
 * server is 0 when there was none.
 */
INLINE void put(struct bucket *b, int slot, struct scratch *work, __u8 tag)
{
	if (b->tag[slot])
		work->former = b->slot[slot];
	b->tag[slot] = 0; /* readers never see a mix of both entries */
	barrier();
	b->slot[slot] = work->fresh;
	barrier();
	b->tag[slot] = tag;
}

/* In order of preference for a new entry, the best last. */
enum vacancy { TAKEN, EXPIRED, FREE };

/* Writes `work->fresh` into bucket `b`: into a free slot, else over an expired entry. Returns the slot, or BUCKET_SLOTS. */
INLINE int claim(struct bucket *b, struct scratch *work, __u8 tag, __u32 now)
{
	enum vacancy best = TAKEN;
	int i, slot = BUCKET_SLOTS;

	work->former.server = 0;
	bpf_spin_lock(&b->lock);
	for (i = 0; i < BUCKET_SLOTS; i++) {
		struct connection *e = &b->slot[i];
		enum vacancy vacancy = TAKEN;

		if (!b->tag[i])
			vacancy = FREE;
		else if (is_expired(e, now))
			vacancy = EXPIRED;
		if (vacancy > best) {
			best = vacancy;
			slot = i;
		}
	}
	if (slot != BUCKET_SLOTS)
		put(b, slot & (BUCKET_SLOTS - 1), work, tag);
	bpf_spin_unlock(&b->lock);
	return slot;
}

/*
 * Entries that yield to a new connection when a bucket is full, the first to go last. Imports are those that no packet has used
 * here: whoever can send sync messages can make such entries without end. A handshake that has just begun outlasts them.
 */
enum yielding { STAYS, IN_HANDSHAKE, UNUSED_IMPORT, HALF_OPEN };

INLINE enum yielding yielding_of(const struct settings *s, const struct connection *e, __u32 now)
{
	if (e->flags & CONNECTION_FOREIGN && (e->flags & CONNECTION_TEMPLATE ? !e->master : e->packets <= s->sync_threshold))
		return UNUSED_IMPORT;
	if (e->state != STATE_SYN_RECV || e->flags & CONNECTION_TEMPLATE)
		return STAYS;
	return now + s->timeout[STATE_SYN_RECV] - e->expires < s->hz ? IN_HANDSHAKE : HALF_OPEN;
}

/* Writes the scratch's `fresh` over an entry of a full bucket that yields to it. Returns the slot, or BUCKET_SLOTS. */
GLOBAL int evict(__u32 bucket, __u32 tag, __u32 now, __u32 which)
{
	const struct settings *settings = the_settings();
	struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);
	struct scratch *work = the_scratch(which);
	enum yielding best = STAYS;
	int i, slot = BUCKET_SLOTS;
	__u32 expires = 0;

	if (!settings || !b || !work)
		return BUCKET_SLOTS;
	for (i = 0; i < BUCKET_SLOTS; i++) {
		enum yielding yielding = yielding_of(settings, &b->slot[i], now);

		if (yielding > best) {
			best = yielding;
			slot = i;
			expires = b->slot[i].expires;
		}
	}
	if (slot == BUCKET_SLOTS)
		return BUCKET_SLOTS;
	slot &= BUCKET_SLOTS - 1;
	work->former.server = 0;
	bpf_spin_lock(&b->lock);
	if (b->slot[slot].expires == expires) /* else another CPU has used or replaced it meanwhile */
		put(b, slot, work, tag);
	else
		slot = BUCKET_SLOTS;
	bpf_spin_unlock(&b->lock);
	if (slot != BUCKET_SLOTS)
		count(COUNT_EVICTED);
	return slot;
}

/* Adds the scratch's `fresh` to the table and counts it at its server. Returns its slot, or NOWHERE when both buckets are full. */
GLOBAL __u32 insert(__u32 now, __u32 which)
{
	struct settings *settings = the_settings();
	struct scratch *work = the_scratch(which);
	struct bucket *first, *b;
	struct server *server;
	__u32 bucket, number;
	__u64 hash;
	int slot;

	if (!settings || !work)
		return NOWHERE;
	hash = entry_hash(settings, &work->fresh);
	bucket = first_choice(settings, hash);
	first = bpf_map_lookup_elem(&buckets, &bucket);
	if (!first)
		return NOWHERE;
	slot = claim(first, work, tag_of(hash), now);
	if (slot == BUCKET_SLOTS) {
		bucket = second_choice(settings, hash);
		b = bpf_map_lookup_elem(&buckets, &bucket);
		if (!b)
			return NOWHERE;
		ADD(first->spilled, 1); /* before the entry is written: a look-up must not miss it */
		slot = claim(b, work, tag_of(hash), now);
		if (slot == BUCKET_SLOTS && !(work->fresh.flags & CONNECTION_FOREIGN)) /* an import takes nobody's place */
			slot = evict(bucket, tag_of(hash), now, which);
		if (slot == BUCKET_SLOTS)
			ADD(first->spilled, -1);
		if (slot == BUCKET_SLOTS && !(work->fresh.flags & CONNECTION_FOREIGN)) {
			bucket = first_choice(settings, hash);
			slot = evict(bucket, tag_of(hash), now, which);
		}
	}
	if (slot == BUCKET_SLOTS)
		return NOWHERE;
	number = bucket * BUCKET_SLOTS + slot;
	if (work->former.server)
		on_delete(number, which);
	bucket = work->fresh.server;
	server = bpf_map_lookup_elem(&servers, &bucket);
	if (server)
		count_in(server, work->fresh.flags);
	return number;
}

/* Deletes the entry in slot `number` if it still has `client_port`, and corrects the counters. Returns whether it did. */
GLOBAL int delete(__u32 number, __u32 client_port, __u32 which)
{
	__u32 bucket = number / BUCKET_SLOTS, slot = number % BUCKET_SLOTS;
	struct bucket *b = bpf_map_lookup_elem(&buckets, &bucket);
	struct scratch *work = the_scratch(which);
	int mine = 0;

	if (!b || !work)
		return 0;
	bpf_spin_lock(&b->lock);
	if (b->tag[slot] && b->slot[slot].client_port == client_port) {
		work->former = b->slot[slot];
		b->tag[slot] = 0;
		mine = 1;
	}
	bpf_spin_unlock(&b->lock);
	if (mine)
		on_delete(number, which);
	return mine;
}
