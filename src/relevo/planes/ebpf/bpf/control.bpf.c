/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs for the loader, which runs them by BPF_PROG_TEST_RUN: what must happen under the locks of the table happens in the
 * kernel. The request is the packet; it is changed in place and read back.
 */
#include "state.h"

#define SWEEP_BUCKETS 64 /* in one run; the loader asks for as many runs as the table needs */

struct sweep_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u32 next;             /* bucket to go on with */
	__u32 ended;            /* entries taken out so far */
};

/* Takes out entries whose time is over, so that the counters tell the truth. */
SEC("tc")
int relevo_sweep(struct __sk_buff *frame)
{
	struct sweep_request *request = frame_begin(frame);
	__u32 bucket, now = (__u32)bpf_jiffies64(), ended = 0, i, slot;

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
			if (b->tag[slot] && is_over(&b->slot[slot], now))
				ended += take_out(bucket * BUCKET_SLOTS + slot, b->slot[slot].client_port, 1);
		}
	}
	request = frame_begin(frame);
	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->next = bucket;
	request->ended += ended;
	return TC_ACT_OK;
}

struct clock_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u64 jiffies;
};

/* Tells the time in jiffies, which nothing else tells user space. */
SEC("tc")
int relevo_clock(struct __sk_buff *frame)
{
	struct clock_request *request = frame_begin(frame);

	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->jiffies = bpf_jiffies64();
	return TC_ACT_OK;
}

struct take_out_request {
	__u8 ethernet[ETHERNET];
	__be16 client_port;
	__u32 place;
	__u32 done;
};

/* Takes one entry out. */
SEC("tc")
int relevo_take_out(struct __sk_buff *frame)
{
	struct take_out_request *request = frame_begin(frame);
	int done;

	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	done = take_out(request->place, request->client_port, 1);
	request = frame_begin(frame);
	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->done = done;
	return TC_ACT_OK;
}

struct enter_request {
	__u8 ethernet[ETHERNET];
	__u8 reserved[2];
	__u32 place;            /* NOWHERE when there was no room */
	__u32 reserved_2;
	struct connection connection; /* `expires`: jiffies from now */
};

/* Enters a connection that no packet opened: a peer's, or a test's. */
SEC("tc")
int relevo_enter(struct __sk_buff *frame)
{
	struct enter_request *request = frame_begin(frame);
	__u32 place, now = (__u32)bpf_jiffies64();
	struct scratch *work = the_scratch(1);

	if ((void *)(request + 1) > frame_end(frame) || !work)
		return TC_ACT_SHOT;
	work->fresh = request->connection;
	work->fresh.expires += now;
	place = insert(now, 1);
	request = frame_begin(frame);
	if ((void *)(request + 1) > frame_end(frame))
		return TC_ACT_SHOT;
	request->place = place;
	return TC_ACT_OK;
}

char terms[] SEC("license") = "Dual BSD/GPL";
