/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes and neighbours. They come from the kernel's tables and are cached per CPU for a tenth of a second, during which a
 * packet needs no look-up. The packet that renews an entry is sent through the kernel's neighbour code, so that neighbours
 * in use are probed. XDP does no route look-up: without a cached entry it passes the packet to TC, which fills the cache for
 * both.
 */
#pragma once
#include "count.h"

#define NEIGHBOUR_LIFE_DIVISOR 10 /* of a second */

INLINE struct neighbour *neighbour_of(const struct address *destination)
{
	__u32 key = (__u32)(destination->half[0] ^ destination->half[0] >> 32 ^ destination->half[1] ^ destination->half[1] >> 32);

	key = hash_32(key, 11);
	_Static_assert(NEIGHBOURS == 1 << 11, "the hash has as many bits");
	return bpf_map_lookup_elem(&neighbours, &key);
}

INLINE int is_current(const struct neighbour *neighbour, const struct address *destination, __u32 now)
{
	return same_address(&neighbour->destination, destination) && !past(neighbour->expires, now);
}

/* Writes destination and source MAC into the Ethernet header. */
INLINE void write_macs(void *ethernet, const struct neighbour *neighbour)
{
	const __u16 *macs = (const void *)neighbour->destination_mac;
	__u16 *to = ethernet;

	_Static_assert(__builtin_offsetof(struct neighbour, source_mac) == __builtin_offsetof(struct neighbour, destination_mac) + 6, "in a row");
	to[0] = macs[0];
	to[1] = macs[1];
	to[2] = macs[2];
	to[3] = macs[3];
	to[4] = macs[4];
	to[5] = macs[5];
}

struct route {
	struct neighbour *neighbour;
	struct bpf_redir_neigh next; /* TC, when the entry is new: the next hop that the kernel resolves */
	__u32 interface;
	__u16 mtu;
	__u8 renewed;
};

#ifdef RELEVO_XDP

INLINE enum reason find_route(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			    struct route *route)
{
	route->neighbour = neighbour_of(destination);
	if (!route->neighbour || !is_current(route->neighbour, destination, p->now))
		return PASS_SLOW;
	route->mtu = route->neighbour->mtu;
	route->interface = route->neighbour->interface;
	return GO_ON;
}

#else

INLINE void fill_fib_lookup(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			   struct bpf_fib_lookup *fib)
{
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->ifindex = frame->ingress_ifindex ? frame->ingress_ifindex : frame->ifindex;
	fib->l4_protocol = p->protocol;
	fib->tot_len = 1; /* then the result has the route's MTU, not the device's */
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

INLINE enum reason fib_failure(long result)
{
	switch (result) {
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
 * Looks up the route in the kernel. bpf_fib_lookup works only for interfaces that forward. Where the frame's interface does
 * not (ip_forward=0), the look-up is repeated for lo, as for a packet of this node, which is how IPVS sends too; the loader
 * enables forwarding on lo.
 */
INLINE long look_up_route(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			  struct bpf_fib_lookup *fib)
{
	long result;

	fill_fib_lookup(frame, p, source, destination, fib);
	result = bpf_fib_lookup(frame, fib, sizeof(*fib), 0);
	if (likely(result != BPF_FIB_LKUP_RET_FWD_DISABLED))
		return result;
	fill_fib_lookup(frame, p, source, destination, fib);
	fib->ifindex = LOOPBACK;
	return bpf_fib_lookup(frame, fib, sizeof(*fib), 0);
}

/* Looks up route and neighbour in the kernel, and caches them if the neighbour is resolved. */
NOINLINE enum reason look_up_neighbour(frame_t *frame, const struct packet *p, const struct address *source,
				const struct address *destination, struct route *route)
{
	struct bpf_fib_lookup fib;
	struct settings *settings = the_settings();
	struct neighbour *neighbour = route->neighbour;
	long result;

	result = look_up_route(frame, p, source, destination, &fib);
	if (result == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		result = BPF_FIB_LKUP_RET_NO_NEIGH; /* a route with an MTU of 1: only the MTU is needed here */
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return fib_failure(result);
	route->interface = fib.ifindex;
	route->mtu = fib.mtu_result == 1 ? 0 : fib.mtu_result; /* kernels before 5.12 leave it as it was */
	route->renewed = 1;
	route->next.nh_family = fib.family;
	if (fib.family == 2)
		route->next.ipv4_nh = fib.ipv4_dst;
	else
		__builtin_memcpy(route->next.ipv6_nh, fib.ipv6_dst, 16);
	if (result == BPF_FIB_LKUP_RET_SUCCESS && neighbour && settings) {
		neighbour->destination = *destination;
		neighbour->interface = fib.ifindex;
		neighbour->mtu = route->mtu;
		neighbour->flags = flags_of(fib.ifindex);
		__builtin_memcpy(neighbour->source_mac, fib.smac, 6);
		__builtin_memcpy(neighbour->destination_mac, fib.dmac, 6);
		neighbour->expires = p->now + settings->hz / NEIGHBOUR_LIFE_DIVISOR;
	}
	return GO_ON;
}

/* Finds the route to `destination`, before anything of the packet is changed. */
INLINE enum reason find_route(frame_t *frame, const struct packet *p, const struct address *source, const struct address *destination,
			    struct route *route)
{
	route->neighbour = neighbour_of(destination);
	route->renewed = 0;
	if (likely(route->neighbour && is_current(route->neighbour, destination, p->now))) {
		route->mtu = route->neighbour->mtu;
		route->interface = route->neighbour->interface;
		return GO_ON;
	}
	return look_up_neighbour(frame, p, source, destination, route);
}

#endif

/* The path MTU to the tunnel endpoint, server `number`: `mtu`, that of the first hop, or less if a router reported less. */
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

/* Whether the packet with `added` more bytes fits the route's MTU; of a GSO packet, each segment must fit. */
INLINE int fits_mtu(frame_t *frame, const struct packet *p, const struct route *route, __u32 added)
{
	if (!route->mtu || likely(p->length + added <= route->mtu))
		return 1;
#ifdef RELEVO_XDP
	return 0;
#else
	return frame->gso_size && frame->gso_size + (p->l4 - ETHERNET) + p->l4_length + added <= route->mtu;
#endif
}

#ifdef RELEVO_XDP
struct {
	NUMBER(type, BPF_MAP_TYPE_DEVMAP_HASH);
	NUMBER(max_entries, 256);
	NUMBER(key_size, 4);
	NUMBER(value_size, 4);
} exits SEC(".maps"); /* interfaces that accept frames from XDP */

INLINE int has_exit(const struct route *route)
{
	__u32 key = route->interface;

	return !!bpf_map_lookup_elem(&exits, &key);
}
#endif

/* Sends the frame by `route`. Returns the program's return value. */
INLINE int leave(frame_t *frame, struct route *route)
{
	void *ethernet = frame_begin(frame);

#ifdef RELEVO_XDP
	if (ethernet + ETHERNET > frame_end(frame) || !route->neighbour)
		return XDP_DROP;
	write_macs(ethernet, route->neighbour);
	if (route->interface == frame->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect_map(&exits, route->interface, 0);
#else
	if (unlikely(route->renewed))
		return bpf_redirect_neigh(route->interface, &route->next, sizeof(route->next), 0);
	if (ethernet + ETHERNET > frame_end(frame) || !route->neighbour)
		return TC_ACT_SHOT;
	write_macs(ethernet, route->neighbour);
	/* Straight to the peer: no queue, no second interrupt. Programs at this end's egress do not see the frame. */
	if (route->neighbour->flags & DEVICE_PEER)
		return bpf_redirect_peer(route->interface, 0);
	return bpf_redirect(route->interface, 0);
#endif
}
