/* SPDX-License-Identifier: Apache-2.0 */
/* The maps. All programs of an instance share the pinned maps; the loader sets the sizes that are 1 here. */
#pragma once
#include "kernel.h"
#include "layout.h"
#include "reasons.h"

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct settings);
} settings SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct bucket);
} buckets SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 1);
	TYPE(key, struct service_key);
	TYPE(value, __u32);
} service_index SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct service);
} services SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct server);
} servers SEC(".maps");

/* Server lists and hash tables of services: ranges of server indices. */
struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u32);
} server_lists SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct counters);
} traffic SEC(".maps"); /* by server */

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, REASONS);
	TYPE(key, __u32);
	TYPE(value, __u64);
} reasons SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(map_flags, BPF_F_MMAPABLE);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct address);
} snat_addresses SEC(".maps");

/* FULLNAT: a server's reply → slot of the connection. Adding an entry reserves the local port. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(map_flags, BPF_F_NO_PREALLOC); /* most tables have no such connection */
	NUMBER(max_entries, 1);
	TYPE(key, struct translation_key);
	TYPE(value, __u32);
} translations SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, NEIGHBOURS);
	TYPE(key, __u32);
	TYPE(value, struct neighbour);
} neighbours SEC(".maps");

/* enum device_flag of each interface, by index. */
struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 1024);
	TYPE(key, __u32);
	TYPE(value, __u32);
} devices SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384); /* fragmented datagrams in flight; the least recently used are evicted */
	TYPE(key, struct fragment_key);
	TYPE(value, struct fragment_ports);
} fragments SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 1024); /* two megabytes */
	TYPE(key, struct held_key);
	TYPE(value, struct held_frame);
} held SEC(".maps");

/* Buffer for a frame's bytes while the frame is rebuilt. */
#define DRAFT_BYTES 9216     /* the largest: a jumbo frame */
struct draft {
	struct iphdr whole, piece;   /* fragmenting: the packet's header, and the next fragment's … */
	__u32 at, length;            /* … offset and length in the payload, which is in `bytes` */
	__u8 bytes[24576];           /* larger than needed: the verifier sees bounds that are powers of two */
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct draft);
} drafts SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 1024);
	TYPE(key, struct address);
	TYPE(value, struct path_mtu);
} path_mtus SEC(".maps"); /* by tunnel endpoint */

/* Values too large for the stack: [0] for packets, [1] for the sweep, which a packet may interrupt. */
struct walk {                /* scheduler state while a server list is walked */
	__u32 place, threshold, heaviest;
	__u32 best;
	__u64 best_load, best_weight;
};

struct scratch {
	struct connection fresh, template, former;
	struct walk walk;
	struct sync_entry entry;
	struct translation_key translation;
	__u32 place;                 /* slot of the connection that was just opened, or NOWHERE */
};

struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 2);
	TYPE(key, __u32);
	TYPE(value, struct scratch);
} scratch SEC(".maps");

/* Replies that each CPU sent in the current second: jiffies of its start << 32 | replies. */
struct {
	NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u64);
} replies SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_RINGBUF);
	NUMBER(max_entries, 1 << 20); /* bytes */
} sync_ring SEC(".maps");
