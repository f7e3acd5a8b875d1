/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the programs and their loader share: the values of the maps. `layout.py` mirrors this file field by field, and a
 * test compares the two through the type information in the object. A change here is a change of LAYOUT_VERSION: pinned
 * maps of another version are not adopted.
 *
 * Addresses are 16 octets; IPv4 ones are mapped (::ffff:a.b.c.d), so that one table, one hash and one comparison serve
 * both families. Ports are in network order. Times are in jiffies, 32 bits, compared with wrap-around.
 */
#pragma once
#include <linux/bpf.h>

#define LAYOUT_VERSION 6

struct address {
	__u64 half[2];
};

/* -- connections ---------------------------------------------------------------------------------------------------- */

/* Eight slots share a lock and 528 octets: tags in the first cache line decide which slot is looked at. */
#define BUCKET_SLOTS 8

enum connection_flag {
	CONNECTION_TEMPLATE = 1 << 0,  /* a persistence template: `client` is masked, no port */
	CONNECTION_ACTIVE = 1 << 1,    /* counted as active at its server, else as inactive */
	CONNECTION_NO_OUTPUT = 1 << 2, /* replies do not pass here (DR, TUN): the input-only state table holds */
	CONNECTION_FULLNAT = 1 << 3,   /* `local` and `local_port` stand for the client at the server */
	CONNECTION_ASSURED = 1 << 4,   /* template: one of its connections was established, or answered by its server (UDP) */
	CONNECTION_FOREIGN = 1 << 5,   /* another director's word made it what it is, or has since */
	CONNECTION_KEEP_PORT = 1 << 6, /* the server is addressed at the virtual port, whatever its own */
};

struct connection {
	struct address client;
	struct address virtual;
	__be16 client_port;
	__be16 virtual_port;
	__u8 protocol;
	__u8 state;
	__u16 flags;
	__u32 server;            /* index in `servers` */
	__u32 expires;           /* jiffies */
	__u32 master;            /* place of the controlling template + 1, 0 for none; a template: connections it controls */
	__u16 packets;           /* from the client, modulo 2^16; what the threshold of synchronisation counts */
	__u16 last_sync;              /* when it was last announced, in ticks (14 bits), and which repetition that was (2); 0: never */
	__be16 local_port;
	__u16 snat_address;           /* index in `locals` */
	__u32 generation;        /* of the server when the connection was made: another one now means it is gone */
};

struct bucket {
	struct bpf_spin_lock lock;
	__u32 spilled;           /* connections whose first choice is this bucket and which live in their second */
	__u8 tag[BUCKET_SLOTS];  /* 0: free slot */
	struct connection slot[BUCKET_SLOTS];
};

/* -- services and servers ------------------------------------------------------------------------------------------- */

struct service_key {
	struct address address;
	__be16 port;             /* 0: every port */
	__u8 protocol;           /* 0: `address.half[0]` is a firewall mark */
	__u8 family;             /* of a mark's service: 4 or 6, else 0 */
	__u32 reserved;
};

enum scheduler {
	SCHEDULER_NONE, SCHEDULER_RR, SCHEDULER_WRR, SCHEDULER_LC, SCHEDULER_WLC, SCHEDULER_SED, SCHEDULER_NQ, SCHEDULER_FO,
	SCHEDULER_OVF, SCHEDULER_SH, SCHEDULER_DH, SCHEDULER_MH,
};

enum service_flag {
	SERVICE_USED = 1 << 0,
	SERVICE_CLOSED = 1 << 1,      /* its address is not on this node now: packets are not ours */
	SERVICE_FALLBACK = 1 << 2,    /* sh-fallback, mh-fallback */
	SERVICE_HASH_PORT = 1 << 3,   /* sh-port, mh-port */
	SERVICE_ONE_PACKET = 1 << 4,  /* UDP: every datagram is scheduled, nothing is remembered */
	SERVICE_ANY_PORT = 1 << 5,    /* port 0: servers keep the packet's port */
	SERVICE_RESET = 1 << 6,       /* without a server, TCP clients get a reset in place of ICMP */
};

struct counters {
	__u64 connections;
	__u64 packets_in, packets_out;
	__u64 bytes_in, bytes_out;
};

struct service {
	struct address address;
	struct address mask;     /* persistence granularity */
	__be16 port;
	__u8 protocol;
	__u8 family;             /* of a mark's service, as in its key; `address` is the mark then (7: 0.0.0.7), protocol 0 */
	__u32 flags;
	__u32 scheduler;
	__u32 persistence;       /* jiffies, 0: off */
	__u64 server_list;            /* first << 32 | count: its servers in `rosters`, newest first; one store swaps it */
	__u64 table;             /* first << 32 | size: the hash table in `rosters` */
	/* What scheduling remembers from one connection to the next. */
	__u32 cursor;            /* place of the last pick in the roster + 1; 0 is the head */
	__u32 threshold;         /* wrr */
	__u32 step;              /* wrr: greatest common divisor of the weights */
	__u32 ceiling;           /* wrr */
	__u64 refused;           /* connections that found no server */
	struct counters former;  /* traffic of servers that have left */
};

enum forwarding {
	FORWARDING_NAT,
	FORWARDING_DR,
	FORWARDING_TUN,
	FORWARDING_FULLNAT,
};

enum tunnel {
	TUNNEL_IPIP,
	TUNNEL_GUE,
};

struct server {
	struct address address;
	struct address outer_source; /* TUN: source address of the outer header */
	__be16 port;                 /* 0: the packet's own */
	__u8 forwarding;
	__u8 tunnel;
	__be16 tunnel_port;
	__u16 snat_count;          /* FULLNAT: local addresses that stand for clients … */
	__u32 snat_first;          /* … in `locals` */
	__u32 service;
	__u32 weight;
	__u32 upper, lower;          /* thresholds, 0: off */
	__u32 generation;            /* grows when the server leaves; odd while there is none here */
	__u32 overloaded;
	__u32 active, inactive;      /* connections */
	__u32 templates;
	__u32 is_local;              /* its address is this node's: the kernel's route look-up does not tell that from no route */
	__u32 reserved;
};

/* -- FULLNAT -------------------------------------------------------------------------------------------------------- */

struct translation_key {     /* what a server's reply says */
	struct address remote, local;
	__be16 remote_port, local_port;
	__u8 protocol;
	__u8 reserved[3];
};

/* -- next hops, fragments ------------------------------------------------------------------------------------------- */

struct neighbour {
	struct address destination;
	__u32 interface;
	__u32 expires;
	__u16 mtu;               /* 0: not known */
	__u8 destination_mac[6], source_mac[6]; /* as they stand in a frame */
	__u8 flags;              /* enum device_flag, of the interface */
	__u8 reserved[5];
};

enum device_flag {
	DEVICE_PEER = 1 << 0,    /* a veth whose other end is in another namespace: frames go straight into that end */
};
#define NEIGHBOURS 2048 /* per CPU, chosen by a hash of the destination: a collision costs a route look-up, nothing else */

struct fragment_key {
	struct address source, destination;
	__u32 identification;
	__u8 protocol;           /* IPv6: 0 */
	__u8 reserved[3];
};

struct fragment_ports {      /* what later fragments follow */
	__be16 source, destination;
	__u32 expires;
	__u32 server, generation; /* one-packet scheduling: where the first went; else 0, and there is a connection */
	__u8 protocol;
	__u8 reserved[3];
};

struct held_key {
	struct fragment_key datagram;
	__u32 number;            /* in the order that they came */
	__u32 reserved;
};

#define HELD_BYTES 2048      /* the largest frame that is held */
struct held_frame {          /* a later fragment whose first has not come */
	__u32 length;
	__u32 expires;
	__u8 bytes[HELD_BYTES];
};

/* What a router on the way to a tunnel's end let through: the kernel learns that for its own tunnels alone. */
struct path_mtu {
	__u32 expires;
	__u16 mtu;
	__u16 reserved;
};

/* -- synchronisation ------------------------------------------------------------------------------------------------ */

/* What other directors are told of a connection: an entry of IPVS's message, version 1, as it goes over the wire. */
struct sync_entry {
	__u8 type;               /* 0: IPv4, 1: IPv6 */
	__u8 protocol;           /* 0: the template of a firewall mark */
	__be16 length;
	__be32 flags;
	__be16 state;
	__be16 client_port, virtual_port, server_port;
	__be32 mark;
	__be32 seconds;          /* the whole time-out */
	__u8 addresses[48];      /* client, virtual, server; IPv4 ones take the first 12 */
};

/* -- settings ------------------------------------------------------------------------------------------------------- */

enum tcp_state {             /* numbers of IPVS: they are on the wire of its synchronisation */
	STATE_NONE, STATE_ESTABLISHED, STATE_SYN_SENT, STATE_SYN_RECV, STATE_FIN_WAIT, STATE_TIME_WAIT, STATE_CLOSE,
	STATE_CLOSE_WAIT, STATE_LAST_ACK, STATE_LISTEN, STATE_SYNACK, STATE_UDP, STATES,
};
#define TIMEOUTS 16

enum setting_flag {
	SETTING_SLOPPY_TCP = 1 << 0,      /* any segment but RST opens a connection */
	SETTING_SYNC = 1 << 1,        /* other directors are told of connections: somebody reads the ring */
	SETTING_MARKS = 1 << 2,           /* there are firewall-mark services */
	SETTING_KEEP_ORPHANS = 1 << 3,    /* connections of a removed server hang till they time out (expire_nodest_conn 0) */
	SETTING_EXPIRE_QUIESCENT = 1 << 4,/* templates of a server of weight 0 are not used any more */
	SETTING_SECURE_TCP = 1 << 5,
	SETTING_SYNC_TEMPLATES_ONLY = 1 << 6, /* of persistent connections, other directors are told the templates only */
};

#define FILTER_BITS 15
struct settings {
	__u32 version;           /* LAYOUT_VERSION */
	__u32 flags;
	__u32 hz;                /* jiffies a second */
	__u32 replies_per_second;  /* ICMP errors and resets that each CPU may send */
	__u32 timeout[TIMEOUTS]; /* jiffies, by state */
	__u64 key[2];            /* of the hash of connections: random, made once */
	__u32 bucket_mask;       /* number of buckets - 1 */
	__u32 path_mtus;         /* a router has told the MTU of a path to a tunnel's end: see `path_mtus` */
	__u16 sync_threshold, sync_period; /* a connection is announced at this packet, and every so many later (0: no more) */
	__u32 sync_refresh;      /* jiffies; what was announced is announced again no sooner, 0: by the count alone */
	__u16 sync_retries;      /* ... but for so many times, each an eighth of it after the last */
	__u16 tick_shift;        /* `told` counts ticks of so many bits of jiffies: a quarter of a second, an hour in all */
	__u16 local_port_first, local_port_count; /* FULLNAT: below the range of the system's own sockets */
	__u8 virtual_filter[1 << (FILTER_BITS - 3)]; /* which addresses may be virtual: a bit by hash; false alarms are fine */
	__u8 server_filter[1 << (FILTER_BITS - 3)];
};
