/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next hop and the way out. Routes and neighbours come from the kernel's own tables and are kept per CPU for a tenth of
 * a second, in which a packet costs no look-up. The packet that renews an entry leaves through the kernel's neighbour code,
 * so that a neighbour which is in use is also probed. XDP never asks the kernel: what it does not know goes up to TC,
 * which learns it for both.
 */
#pragma once
#include "count.h"

#define HOP_LIFE_DIVISOR 10 /* of a second */

INLINE struct hop *hop_of(const struct address *destination)
{
	__u32 key = (__u32)(destination->half[0] ^ destination->half[0] >> 32 ^ destination->half[1] ^ destination->half[1] >> 32);

	key = hash_32(key, 11);
	_Static_assert(HOPS == 1 << 11, "the hash has as many bits");
	return bpf_map_lookup_elem(&hops, &key);
}

INLINE int is_current(const struct hop *hop, const struct address *destination, __u32 now)
{
	return same_address(&hop->destination, destination) && !past(hop->expires, now);
}

/* Both, as they stand in a frame. */
INLINE void write_macs(void *ethernet, const struct hop *hop)
{
	const __u16 *macs = (const void *)hop->destination_mac;
	__u16 *to = ethernet;

	_Static_assert(__builtin_offsetof(struct hop, source_mac) == __builtin_offsetof(struct hop, destination_mac) + 6, "in a row");
	to[0] = macs[0];
	to[1] = macs[1];
	to[2] = macs[2];
	to[3] = macs[3];
	to[4] = macs[4];
	to[5] = macs[5];
}

struct way {
	struct hop *hop;
	struct bpf_redir_neigh next; /* TC, when the entry is new: who the kernel must reach */
	__u32 interface;
	__u16 mtu;
	__u8 renewed;
};

#ifdef RELEVO_XDP

INLINE enum reason find_way(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			    struct way *way)
{
	way->hop = hop_of(destination);
	if (!way->hop || !is_current(way->hop, destination, p->now))
		return PASS_SLOW;
	way->mtu = way->hop->mtu;
	way->interface = way->hop->interface;
	return GO_ON;
}

#else

INLINE void describe_route(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			   struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = frame->ingress_ifindex ? frame->ingress_ifindex : frame->ifindex;
	fib->l4_protocol = p->protocol;
	fib->tot_len = 1; /* so that the answer has the route's MTU, not the device's */
	if (is_v4(destination)) {
		fib->family = 2;
		fib->ipv4_src = is_v4(source) ? get_v4(source) : 0;
		fib->ipv4_dst = get_v4(destination);
	} else {
		fib->family = 10;
		put_v6(fib->ipv6_src, source);
		put_v6(fib->ipv6_dst, destination);
	}
}

INLINE enum reason refusal_of_route(long answer)
{
	switch (answer) {
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return PASS_LOCAL;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return DROP_FORWARDING_OFF;
	}
	return DROP_NO_ROUTE;
}

INLINE __u8 flags_of(__u32 interface)
{
	__u32 *flags = bpf_map_lookup_elem(&devices, &interface);

	return flags ? *flags : 0;
}

#define LOOPBACK 1 /* the index of every namespace's lo */

/*
 * Asks the kernel for the route. It answers for interfaces that forward only: where the frame's own does not (ip_forward=0)
 * for a packet of this node's, as which IPVS sends them too; the loader sees to it that lo forwards.
 */
INLINE long look_up_route(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			  struct bpf_fib_lookup *fib)
{
	long answer;

	describe_route(frame, p, source, destination, fib);
	answer = bpf_fib_lookup(frame, fib, sizeof(*fib), 0);
	if (likely(answer != BPF_FIB_LKUP_RET_FWD_DISABLED))
		return answer;
	describe_route(frame, p, source, destination, fib);
	fib->ifindex = LOOPBACK;
	return bpf_fib_lookup(frame, fib, sizeof(*fib), 0);
}

/* Asks the kernel, and keeps the answer if it names a neighbour. */
NOINLINE enum reason ask_kernel(frame_t *frame, const struct packet *p, const struct address *source,
				const struct address *destination, struct way *way)
{
	struct bpf_fib_lookup fib;
	struct settings *settings = the_settings();
	struct hop *hop = way->hop;
	long answer;

	answer = look_up_route(frame, p, source, destination, &fib);
	if (answer == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		answer = BPF_FIB_LKUP_RET_NO_NEIGH; /* a route MTU of 1? only its number is wanted */
	if (answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH)
		return refusal_of_route(answer);
	way->interface = fib.ifindex;
	way->mtu = fib.mtu_result == 1 ? 0 : fib.mtu_result; /* kernels before 5.12 leave it as it was */
	way->renewed = 1;
	way->next.nh_family = fib.family;
	if (fib.family == 2)
		way->next.ipv4_nh = fib.ipv4_dst;
	else
		__builtin_memcpy(way->next.ipv6_nh, fib.ipv6_dst, 16);
	if (answer == BPF_FIB_LKUP_RET_SUCCESS && hop && settings) {
		hop->destination = *destination;
		hop->interface = fib.ifindex;
		hop->mtu = way->mtu;
		hop->flags = flags_of(fib.ifindex);
		__builtin_memcpy(hop->source_mac, fib.smac, 6);
		__builtin_memcpy(hop->destination_mac, fib.dmac, 6);
		hop->expires = p->now + settings->hz / HOP_LIFE_DIVISOR;
	}
	return GO_ON;
}

/* Finds how `destination` is reached. A packet that may not go there is refused before anything of it was changed. */
INLINE enum reason find_way(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			    struct way *way)
{
	way->hop = hop_of(destination);
	way->renewed = 0;
	if (likely(way->hop && is_current(way->hop, destination, p->now))) {
		way->mtu = way->hop->mtu;
		way->interface = way->hop->interface;
		return GO_ON;
	}
	return ask_kernel(frame, p, source, destination, way);
}

#endif

/* The MTU of the way to a tunnel's end, server `number`: that of the first hop, or less, as a router said. */
GLOBAL __u32 path_mtu(__u32 number, __u32 mtu)
{
	struct server *s = bpf_map_lookup_elem(&servers, &number);
	struct settings *settings = the_settings();
	struct packet *p = the_packet();
	struct path_mtu *path;

	if (!s || !p || !settings || !settings->path_mtus)
		return mtu;
	path = bpf_map_lookup_elem(&path_mtus, &s->address);
	return path && !past(path->expires, p->now) && (!mtu || path->mtu < mtu) ? path->mtu : mtu;
}

/* Whether the packet with `added` octets before it fits the path; a super-packet by its segments. */
INLINE int fits(frame_t *frame, const struct packet *p, const struct way *way, __u32 added)
{
	if (!way->mtu || likely(p->length + added <= way->mtu))
		return 1;
#ifdef RELEVO_XDP
	return 0;
#else
	return frame->gso_size && frame->gso_size + (p->l4 - ETHERNET) + p->l4_length + added <= way->mtu;
#endif
}

#ifdef RELEVO_XDP
struct {
	NUMBER(type, BPF_MAP_TYPE_DEVMAP_HASH);
	NUMBER(max_entries, 256);
	NUMBER(key_size, 4);
	NUMBER(value_size, 4);
} exits SEC(".maps"); /* interfaces that take frames from XDP */

INLINE int has_exit(const struct way *way)
{
	__u32 key = way->interface;

	return !!bpf_map_lookup_elem(&exits, &key);
}
#endif

/* Sends the frame on its way; the program's return value. */
INLINE int leave(frame_t *frame, struct way *way)
{
	void *ethernet = frame_begin(frame);

#ifdef RELEVO_XDP
	if (ethernet + ETHERNET > frame_end(frame) || !way->hop)
		return XDP_DROP;
	write_macs(ethernet, way->hop);
	if (way->interface == frame->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect_map(&exits, way->interface, 0);
#else
	if (unlikely(way->renewed))
		return bpf_redirect_neigh(way->interface, &way->next, sizeof(way->next), 0);
	if (ethernet + ETHERNET > frame_end(frame) || !way->hop)
		return TC_ACT_SHOT;
	write_macs(ethernet, way->hop);
	/* Into the other end at once: no queue, no second interrupt. What listens at this end's egress is passed over. */
	if (way->hop->flags & DEVICE_PEER)
		return bpf_redirect_peer(way->interface, 0);
	return bpf_redirect(way->interface, 0);
#endif
}
