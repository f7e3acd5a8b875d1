/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet: what `parse` finds out about it, and access to its octets. The two hooks differ in how a frame is reached and
 * changed; that difference is here, in `frame_*`, and nowhere else.
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
	__u32 length;           /* octets from the IP header on */
	__u8 family;            /* 4 or 6 */
	__u8 protocol;          /* an ICMP error: of the quoted packet */
	__u8 tcp_flags;         /* the 14th octet of the TCP header */
	__u8 ttl;
	__u8 fragment;
	__u8 dont_fragment;
	__u8 l4_length;         /* octets of the transport header */
	__u32 identification;   /* of a fragment */
	__u32 scheduled;        /* a later fragment under one-packet scheduling: the server of its first, or 0 */
	__u32 now;              /* jiffies */
	__u32 flags;            /* of the settings */
	/* Of one that is not simply forwarded: */
	__u16 reason;
	__u16 mtu;              /* of its way, or 0 */
	__u8 icmp_type, icmp_code; /* of the error that answers it */
};

/*
 * The packet at work is in a map, not on the stack: the verifier then does not follow what every path has written to it, and
 * large functions can be global, which it reads once each instead of once per caller.
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

/* Both fields are 32 bits wide to C and pointers to the verifier; the compiler must not take them for numbers. */
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

/* Octets from the IP header on, as the frame has them; a GSO super-packet counts whole. */
INLINE __u32 frame_length(frame_t *frame)
{
#ifdef RELEVO_XDP
	return (__u32)((long)frame_end(frame) - (long)frame_begin(frame)) - ETHERNET;
#else
	return frame->len - ETHERNET;
#endif
}

/*
 * Whether the frame has `length` octets; they are directly readable then. Payload may lie apart from the headers (TC), so
 * only what is looked at is asked for. Pointers into the frame are void afterwards.
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
