"""Every keyword of keepalived, by block, with the release in which the block got it.

The table dates a file, and distinguishes keywords that Relevo does not support from keywords that keepalived does not have.
It comes from keepalived's parser at each release; the change log dates the keywords of the first tagged releases.
"""

from __future__ import annotations

from typing import Final

_BY_RELEASE: Final = {
    "": {
        "0.5.3": "SSL global_defs virtual_server vrrp_instance",
        "0.6.1": "vrrp_sync_group",
        "1.0.1": "static_routes",
        "1.0.2": "virtual_server_group",
        "1.1.0": "static_ipaddress",
        "1.1.13": "vrrp_script",
        "1.1.18": "linkbeat_use_polling",
        "1.2.20": "static_rules",
        "1.2.21": "garp_group",
        "1.2.24": "instance net_namespace use_pid_dir",
        "1.3.0": "namespace_with_ipsets",
        "2.0.0": "bfd_instance child_wait_time vrrp_track_file",
        "2.0.3": "track_group",
        "2.0.11": "vrrp_track_process",
        "2.0.13": "linkbeat_interfaces",
        "2.1.0": "net_namespace_ipvs track_file",
        "2.2.3": "interface_up_down_delays",
    },
    "global_defs": {
        "0.5.3": "notification_email notification_email_from smtp_connect_timeout smtp_server",
        "1.1.10": "router_id",
        "1.2.5": "enable_traps",
        "1.2.10": "vrrp_mcast_group4 vrrp_mcast_group6",
        "1.2.20": """
            checker_no_swap checker_priority enable_snmp_checker enable_snmp_keepalived enable_snmp_rfc
            enable_snmp_rfcv2 enable_snmp_rfcv3 lvs_sync_daemon smtp_helo_name snmp_socket vrrp_check_unicast_src
            vrrp_garp_lower_prio_delay vrrp_garp_lower_prio_repeat vrrp_garp_master_delay vrrp_garp_master_refresh
            vrrp_garp_master_refresh_repeat vrrp_garp_master_repeat vrrp_ipsets vrrp_iptables
            vrrp_lower_prio_no_advert vrrp_no_swap vrrp_priority vrrp_skip_check_adv_addr vrrp_strict vrrp_version
        """,
        "1.2.21": "vrrp_garp_interval vrrp_gna_interval",
        "1.2.23": "lvs_flush",
        "1.2.24": "default_interface lvs_timeouts",
        "1.3.0": "enable_dbus enable_script_security script_user",
        "1.3.5": "vrrp_higher_prio_send_advert",
        "1.3.6": "lvs_notify_fifo lvs_notify_fifo_script notify_fifo notify_fifo_script vrrp_notify_fifo vrrp_notify_fifo_script",
        "1.3.7": "dbus_service_name",
        "2.0.0": """
            bfd_no_swap bfd_priority bfd_rlimit_rtime bfd_rt_priority checker_rlimit_rtime checker_rt_priority
            dynamic_interfaces enable_snmp_vrrp lvs_netlink_cmd_rcv_bufs lvs_netlink_cmd_rcv_bufs_force
            lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force no_checker_emails no_email_faults
            rs_init_notifies smtp_alert smtp_alert_checker smtp_alert_vrrp vrrp_netlink_cmd_rcv_bufs
            vrrp_netlink_cmd_rcv_bufs_force vrrp_netlink_monitor_rcv_bufs vrrp_netlink_monitor_rcv_bufs_force
            vrrp_rlimit_rtime vrrp_rt_priority
        """,
        "2.0.3": "vrrp_rx_bufs_multiplier vrrp_rx_bufs_policy",
        "2.0.9": "umask",
        "2.0.11": """
            checker_log_all_failures nftables nftables_counters nftables_ifindex nftables_priority
            process_monitor_rcv_bufs process_monitor_rcv_bufs_force
        """,
        "2.0.12": "vrrp_min_garp",
        "2.0.14": "vrrp_startup_delay",
        "2.0.15": "lvs_flush_onstop random_seed",
        "2.0.16": """
            bfd_process_name log_unknown_vrids lvs_process_name process_name process_names
            vrrp_notify_priority_changes vrrp_process_name
        """,
        "2.0.17": "bfd_cpu_affinity checker_cpu_affinity vrrp_cpu_affinity",
        "2.1.0": """
            bfd_rlimit_rttime checker_rlimit_rttime max_auto_priority min_auto_priority_delay reload_repeat
            reload_time_file shutdown_script shutdown_script_timeout startup_script startup_script_timeout
            vrrp_rlimit_rttime
        """,
        "2.2.0": """
            checker_process_name disable_local_igmp include_check lvs_flush_on_stop reload_check_config reload_file
            tmp_config_directory vmac_addr_prefix vmac_prefix vrrp_vmac_garp_intvl
        """,
        "2.2.2": "nftables_ipvs nftables_ipvs_priority nftables_ipvs_start_fwmark",
        "2.2.3": "config_save_dir data_use_instance vrrp_down_timer_adverts vrrp_garp_extra_if",
        "2.2.5": "fifo_write_vrrp_states_on_reload",
        "2.2.8": "json_version v3_checksum_as_v2",
        "2.3.0": "dbus_no_interface_name snmp_rs_stats_update_interval snmp_vs_stats_update_interval use_symlink_paths",
        "2.3.2": "iproute_etc_dir iproute_usr_dir",
        "2.3.3": "json_dump_file state_dump_file stats_dump_file vrrp_owner_ignore_adverts",
        "2.4.0": "vrrp_delay_after_boot",
        "after 2.4.3": "set_supplementary_groups",
    },
    "vrrp_instance": {
        "0.5.3": "advert_int authentication debug interface notify preempt priority state virtual_ipaddress virtual_router_id",
        "0.5.5": "lvs_sync_daemon_interface",
        "0.5.7": "smtp_alert",
        "0.5.9": "notify_backup notify_fault notify_master virtual_ipaddress_excluded",
        "0.6.1": "mcast_src_ip",
        "0.7.1": "garp_master_delay",
        "1.0.1": "track_interface virtual_routes",
        "1.1.10": "dont_track_primary nopreempt preempt_delay",
        "1.1.13": "notify_stop track_script",
        "1.2.1": "native_ipv6",
        "1.2.3": "use_vmac",
        "1.2.8": "unicast_peer",
        "1.2.10": "garp_master_refresh unicast_src_ip vmac_xmit_base",
        "1.2.14": "garp_master_refresh_repeat garp_master_repeat",
        "1.2.17": "accept version",
        "1.2.20": """
            garp_lower_prio_delay garp_lower_prio_repeat lower_prio_no_advert skip_check_adv_addr strict_mode
            virtual_rules
        """,
        "1.3.0": "no_accept promote_secondaries",
        "1.3.5": "higher_prio_send_advert",
        "1.3.7": "old_unicast_checksum",
        "2.0.0": "linkbeat_use_polling track_bfd track_file track_src_ip",
        "2.0.3": "kernel_rx_buf_size",
        "2.0.6": "notify_master_rx_lower_pri",
        "2.0.11": "track_process",
        "2.0.16": "notify_priority_changes",
        "2.0.17": "use_ipvlan",
        "2.1.0": "check_unicast_src notify_deleted unicast_ttl",
        "2.2.0": "use_vmac_addr vmac_garp_intvl",
        "2.2.3": "down_timer_adverts garp_extra_if",
        "2.2.5": "mcast_dst_ip unicast_fault_no_peer vrf",
        "2.2.8": "no_virtual_ipaddress timer_expired_backup v3_checksum_as_v2",
        "2.3.2": "thread_timer_expired",
        "2.3.3": "owner_ignore_adverts",
        "2.4.0": "auth_hmac",
    },
    "authentication": {
        "0.5.3": "auth_pass auth_type",
    },
    "auth_hmac": {
        "2.4.0": "active_key anti_replay key mode time_window",
    },
    "vrrp_sync_group": {
        "0.5.3": "notify",
        "0.5.9": "notify_backup notify_fault notify_master",
        "0.6.4": "group",
        "1.0.0": "smtp_alert",
        "1.2.3": "global_tracking",
        "2.0.0": "notify_stop sync_group_tracking_weight track_bfd track_file track_interface track_script",
        "2.0.11": "track_process",
        "2.2.0": "notify_priority_changes",
    },
    "vrrp_script": {
        "1.1.13": "interval script weight",
        "1.1.18": "fall rise",
        "1.2.6": "timeout",
        "1.3.0": "user",
        "1.3.2": "init_fail",
    },
    "vrrp_track_process": {
        "2.0.11": "delay full_command process quorum weight",
        "2.0.16": "fork_delay param_match quorum_max terminate_delay",
    },
    "track_file": {
        "2.1.0": "file init_file weight",
    },
    "vrrp_track_file": {
        "2.0.0": "file init_file weight",
    },
    "bfd_instance": {
        "2.0.0": """
            checker hoplimit idle_tx max_hops min_rx min_tx multiplier neighbor_ip neighbour_ip passive source_ip ttl
            vrrp weight
        """,
        "2.2.8": "multihop",
    },
    "track_group": {
        "2.0.3": "group",
    },
    "garp_group": {
        "1.2.21": "garp_interval gna_interval interface interfaces",
    },
    "virtual_server": {
        "0.5.3": "delay_loop lb_algo lb_kind persistence_timeout protocol real_server sorry_server",
        "0.5.7": "persistence_granularity",
        "0.5.8": "virtualhost",
        "1.0.0": "ha_suspend",
        "1.1.5": "lvs_method lvs_sched",
        "1.1.16": "alpha hysteresis omega quorum quorum_down quorum_up",
        "1.2.8": "ops",
        "1.2.13": "sorry_server_inhibit",
        "1.2.20": "ip_family persistence_engine",
        "1.3.0": "flag-1 flag-2 flag-3 hashed sh-fallback sh-port",
        "1.3.6": "sorry_server_lvs_method",
        "1.3.7": "delay_before_retry inhibit_on_failure retry warmup weight",
        "2.0.0": "smtp_alert",
        "2.0.13": "connect_timeout",
        "2.0.20": "mh-fallback mh-port",
        "2.2.3": "snmp_name",
    },
    "real_server": {
        "0.5.3": "HTTP_GET MISC_CHECK SSL_GET TCP_CHECK weight",
        "0.6.8": "inhibit_on_failure",
        "1.0.0": "notify_down notify_up",
        "1.1.10": "SMTP_CHECK",
        "1.1.13": "lthreshold uthreshold",
        "1.3.0": "DNS_CHECK",
        "1.3.6": "lvs_method virtualhost",
        "1.3.7": "alpha delay_before_retry delay_loop retry warmup",
        "2.0.0": "BFD_CHECK smtp_alert",
        "2.0.13": "connect_timeout",
        "2.1.0": "FILE_CHECK PING_CHECK UDP_CHECK",
        "2.2.3": "snmp_name",
    },
    "TCP_CHECK": {
        "0.5.3": "connect_timeout",
        "0.5.8": "connect_port",
        "1.1.2": "bindto",
        "1.2.13": "warmup",
        "1.2.20": "delay_before_retry retry",
        "1.3.7": "alpha bind_if bind_port connect_ip delay_loop fwmark",
        "2.0.11": "log_all_failures",
    },
    "HTTP_GET": {
        "0.5.3": "connect_timeout delay_before_retry nb_get_retry url",
        "0.5.8": "connect_port",
        "1.1.2": "bindto",
        "1.2.13": "warmup",
        "1.3.6": "virtualhost",
        "1.3.7": "alpha bind_if bind_port connect_ip delay_loop fwmark retry",
        "1.4.3": "enable_sni",
        "2.0.11": "log_all_failures",
        "2.0.17": "fast_recovery http_protocol",
        "2.2.8": "tls_compliant",
        "after 2.4.3": "sni_name",
    },
    "SSL_GET": {
        "0.5.3": "connect_timeout delay_before_retry nb_get_retry url",
        "0.5.8": "connect_port",
        "1.1.2": "bindto",
        "1.2.13": "warmup",
        "1.3.6": "virtualhost",
        "1.3.7": "alpha bind_if bind_port connect_ip delay_loop fwmark retry",
        "1.4.3": "enable_sni",
        "2.0.11": "log_all_failures",
        "2.0.17": "fast_recovery http_protocol",
        "2.2.8": "tls_compliant",
        "after 2.4.3": "sni_name",
    },
    "url": {
        "0.5.3": "digest path",
        "0.7.6": "status_code",
        "1.3.6": "virtualhost",
        "2.0.7": "regex regex_max_offset regex_min_offset regex_no_match regex_options regex_stack",
        "2.2.8": "tls_compliant",
    },
    "SMTP_CHECK": {
        "0.5.3": "connect_timeout delay_before_retry",
        "1.1.10": "helo_name host retry",
        "1.2.13": "warmup",
        "1.3.7": "alpha bind_if bind_port bindto connect_ip connect_port delay_loop fwmark",
        "2.0.11": "log_all_failures",
    },
    "host": {
        "0.5.8": "connect_port",
        "1.1.2": "bindto",
        "1.1.10": "connect_ip",
        "1.3.7": "alpha bind_if bind_port connect_timeout delay_before_retry delay_loop fwmark retry warmup",
        "2.0.11": "log_all_failures",
    },
    "DNS_CHECK": {
        "1.3.0": "name retry type",
        "1.3.7": """
            alpha bind_if bind_port bindto connect_ip connect_port connect_timeout delay_before_retry delay_loop
            fwmark warmup
        """,
        "2.0.11": "log_all_failures",
    },
    "MISC_CHECK": {
        "0.5.3": "misc_path",
        "1.1.0": "misc_timeout",
        "1.1.10": "misc_dynamic",
        "1.2.13": "warmup",
        "1.3.0": "user",
        "1.3.7": "alpha delay_before_retry delay_loop retry",
        "2.0.11": "log_all_failures",
    },
    "UDP_CHECK": {
        "2.1.0": """
            alpha bind_if bind_port bindto connect_ip connect_port connect_timeout delay_before_retry delay_loop
            fwmark log_all_failures require_reply retry warmup
        """,
        "2.2.0": "max_reply_length min_reply_length payload",
    },
    "PING_CHECK": {
        "2.1.0": """
            alpha bind_if bind_port bindto connect_ip connect_port connect_timeout delay_before_retry delay_loop
            fwmark log_all_failures retry warmup
        """,
    },
    "BFD_CHECK": {
        "2.0.0": "alpha name",
    },
    "FILE_CHECK": {
        "2.1.0": "track_file weight",
    },
    "SSL": {
        "0.5.3": "ca certificate key password",
    },
}

KEEPALIVED_KEYWORDS: Final = {
    block: {word: release for release, names in releases.items() for word in names.split()}
    for block, releases in _BY_RELEASE.items()
}
"""Block → keyword → keepalived release that first had it there; the block ``""`` is the top level."""

REMOVED: Final = {
    "nat_mask": "keepalived dropped it in 1.2.19, and it never had an effect on a modern kernel",
    "plugin_dir": "keepalived dropped it in 1.2.19",
    "CI-LINUX": "keepalived dropped it in 1.1.4",
    "real_group": "keepalived dropped it in 1.0.0",
    "real_server_group": "keepalived dropped it in 1.0.0",
    "sync_instance": "keepalived dropped it in 0.5.9; use a vrrp_sync_group",
}
"""Keywords that old files still carry → why they do nothing."""


def known(block: str, word: str) -> str:
    """Return the release in which keepalived got ``word`` in ``block``; empty if it has no such keyword there."""
    return KEEPALIVED_KEYWORDS.get(block, {}).get(word, "")
