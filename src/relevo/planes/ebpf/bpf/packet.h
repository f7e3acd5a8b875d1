/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parsed packet, and access to its bytes. The two hooks differ in how a frame is read and changed; `frame_*` hides that
 * difference.
 */
#pragma once
#include "hash.h"
#include "maps.h"

#ifdef RELEVO_XDP
typedef struct xdp_md frame_t;
#else
typedef struct __sk_buff frame_t;
#endif

#define NOWHERE 0xffffffffU /* no such index */
#define ETHERNET 14

enum fragment_kind { WHOLE, FIRST_FRAGMENT, LATER_FRAGMENT };

struct packet {
	struct address source, destination;
	__be16 source_port, destination_port;
	__u16 l4;               /* offset of the transport header in the frame */
	__u16 quoted;           /* ICMP error: offset of the quoted packet's IP header, else 0 */
	__u32 length;           /* bytes from the IP header on */
	__u8 family;            /* 4 or 6 */
	__u8 protocol;          /* of an ICMP error: that of the quoted packet */
	__u8 tcp_flags;         /* the 14th byte of the TCP header */
	__u8 ttl;
	__u8 fragment;
	__u8 dont_fragment;
	__u8 l4_length;         /* bytes of the transport header */
	__u32 identification;   /* of a fragment */
	__u32 scheduled;        /* of a later fragment under one-packet scheduling: the server of the first one, or 0 */
	__u32 now;              /* jiffies */
	__u32 flags;            /* of the settings */
	/* Of a packet that is not simply forwarded: */
	__u16 reason;
	__u16 mtu;              /* of its route, or 0 */
	__u8 icmp_type, icmp_code; /* of the ICMP error sent in reply */
};

/*
 * The current packet is in a map, not on the stack: the verifier then does not track its fields along every path, and large
 * functions can be global, which it checks once each instead of once per caller.
 */
struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct packet);
} packets SEC(".maps");

INLINE struct packet *the_packet(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&packets, &key);
}

INLINE struct settings *the_settings(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&settings, &key);
}

INLINE struct draft *the_draft(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&drafts, &key);
}

INLINE struct scratch *the_scratch(__u32 which)
{
	return bpf_map_lookup_elem(&scratch, &which);
}

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* The fields are 32-bit numbers in C but pointers for the verifier; the compiler must not treat them as numbers. */
#define FRAME_POINTER(frame, field)                                                                                   \
	({                                                                                                            \
		void *pointer_;                                                                                       \
		__asm__ volatile("%0 = *(u32 *)(%1 + %2)"                                                             \
				 : "=r"(pointer_)                                                                     \
				 : "r"(frame), "i"(__builtin_offsetof(frame_t, field)));                              \
		pointer_;                                                                                             \
	})

INLINE void *frame_begin(frame_t *frame)
{
	return FRAME_POINTER(frame, data);
}

INLINE void *frame_end(frame_t *frame)
{
	return FRAME_POINTER(frame, data_end);
}

/* The frame's bytes from the IP header on; a GSO packet counts whole. */
INLINE __u32 frame_length(frame_t *frame)
{
#ifdef RELEVO_XDP
	return (__u32)((long)frame_end(frame) - (long)frame_begin(frame)) - ETHERNET;
#else
	return frame->len - ETHERNET;
#endif
}

/*
 * Makes the frame's first `length` bytes directly readable. Returns false if it is shorter. At TC, payload may be apart from
 * the headers, so ask only for what is read. Pointers into the frame are invalid afterwards.
 */
INLINE int ensure_readable(frame_t *frame, __u32 length)
{
	if (likely(frame_begin(frame) + length <= frame_end(frame)))
		return 1;
#ifdef RELEVO_XDP
	return 0;
#else
	return length <= frame->len && bpf_skb_pull_data(frame, length) == 0;
#endif
}

INLINE void set_v4(struct address *a, __be32 v4)
{
	a->half[0] = 0;
	a->half[1] = (__u64)v4 << 32 | 0xffff0000U;
}

INLINE __be32 get_v4(const struct address *a)
{
	return (__be32)(a->half[1] >> 32);
}

INLINE void set_v6(struct address *a, const void *v6)
{
	const __u32 *word = v6;

	a->half[0] = word[0] | (__u64)word[1] << 32;
	a->half[1] = word[2] | (__u64)word[3] << 32;
}

INLINE void put_v6(void *v6, const struct address *a)
{
	__u32 *word = v6;

	word[0] = (__u32)a->half[0];
	word[1] = (__u32)(a->half[0] >> 32);
	word[2] = (__u32)a->half[1];
	word[3] = (__u32)(a->half[1] >> 32);
}

INLINE int same_address(const struct address *a, const struct address *b)
{
	return a->half[1] == b->half[1] && a->half[0] == b->half[0];
}

INLINE int is_v4(const struct address *a)
{
	return a->half[0] == 0 && (__u32)a->half[1] == 0xffff0000;
}

INLINE int in_filter(const __u8 *filter, const struct address *a)
{
	__u32 bit = hash_32(fold_address(a), FILTER_BITS);

	return filter[(bit >> 3) & ((1 << (FILTER_BITS - 3)) - 1)] & (1 << (bit & 7));
}

INLINE int past(__u32 time, __u32 now)
{
	return (__s32)(time - now) <= 0;
}
