/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's interface: helpers by number, map definitions, byte order. Only the stable user-space API is used, so the
 * objects need neither kernel headers nor BTF of the machine they run on.
 */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <linux/udp.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
/*
 * A function that the verifier checks once. Its arguments are numbers: kernels before 5.12 allow no pointers, and a kernel
 * without BTF of its own rejects a context argument.
 */
#define GLOBAL __attribute__((noinline))
#define NOINLINE static __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
/* Keeps the compiler from moving a check away from the access it guards. */
#define barrier() __asm__ volatile("" ::: "memory")
/* Bounds `x` by `mask` in the register that is used next, so that the verifier sees the bound. */
#define BOUND(x, mask) __asm__ volatile("%0 &= %1" : "+r"(x) : "i"(mask))

/* `x`, which is 1 … mask + 1, bounded for the verifier: it accepts it as the length of a helper's buffer. */
#define LENGTH(x, mask)                                                                                               \
	({                                                                                                            \
		__u32 length_ = (x) - 1;                                                                              \
		BOUND(length_, mask);                                                                                 \
		length_ + 1;                                                                                          \
	})

#define HELPER(name) (*name)
static void *HELPER(bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long HELPER(bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long HELPER(bpf_map_delete_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u32 HELPER(bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u64 HELPER(bpf_jiffies64)(void) = (void *)BPF_FUNC_jiffies64;
static long HELPER(bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)BPF_FUNC_spin_lock;
static long HELPER(bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)BPF_FUNC_spin_unlock;
static long HELPER(bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *params, int length, __u32 flags) = (void *)BPF_FUNC_fib_lookup;
static long HELPER(bpf_redirect)(__u32 interface, __u64 flags) = (void *)BPF_FUNC_redirect;
static long HELPER(bpf_clone_redirect)(struct __sk_buff *skb, __u32 interface, __u64 flags) = (void *)BPF_FUNC_clone_redirect;
static __s64 HELPER(bpf_csum_diff)(const void *from, __u32 from_size, const void *to, __u32 to_size, __u32 seed) = (void *)BPF_FUNC_csum_diff;
static long HELPER(bpf_redirect_peer)(__u32 interface, __u64 flags) = (void *)BPF_FUNC_redirect_peer;
static long HELPER(bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;
static long HELPER(bpf_redirect_neigh)(__u32 interface, struct bpf_redir_neigh *neighbour, int length, __u64 flags) = (void *)BPF_FUNC_redirect_neigh;
static long HELPER(bpf_skb_pull_data)(struct __sk_buff *skb, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long HELPER(bpf_skb_change_tail)(struct __sk_buff *skb, __u32 length, __u64 flags) = (void *)BPF_FUNC_skb_change_tail;
static long HELPER(bpf_skb_adjust_room)(struct __sk_buff *skb, __s32 difference, __u32 mode, __u64 flags) = (void *)BPF_FUNC_skb_adjust_room;
static long HELPER(bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)BPF_FUNC_l4_csum_replace;
static long HELPER(bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) = (void *)BPF_FUNC_skb_load_bytes;
static long HELPER(bpf_skb_store_bytes)(struct __sk_buff *skb, __u32 offset, const void *from, __u32 length, __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static struct bpf_sock *HELPER(bpf_sk_lookup_tcp)(void *ctx, struct bpf_sock_tuple *tuple, __u32 size, __u64 netns, __u64 flags) = (void *)BPF_FUNC_sk_lookup_tcp;
static long HELPER(bpf_sk_assign)(void *ctx, struct bpf_sock *socket, __u64 flags) = (void *)BPF_FUNC_sk_assign;
static long HELPER(bpf_sk_release)(struct bpf_sock *socket) = (void *)BPF_FUNC_sk_release;
static long HELPER(bpf_xdp_adjust_head)(struct xdp_md *xdp, int difference) = (void *)BPF_FUNC_xdp_adjust_head;
static long HELPER(bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)BPF_FUNC_ringbuf_output;

/* A map definition as libbpf reads it from BTF: a number is the length of an array type. */
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, type) type *name

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the programs support little-endian machines only"
#endif
#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)
