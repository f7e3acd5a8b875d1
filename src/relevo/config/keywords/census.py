"""Every keyword of keepalived, with the release that brought it: for dating a file and for naming what is not here yet."""

from __future__ import annotations

from typing import Final

_BY_RELEASE: Final = {
    "0.5.3": """
        HTTP_GET MISC_CHECK SSL SSL_GET TCP_CHECK advert_int authentication auth_pass auth_type ca
        certificate connect_timeout debug delay_before_retry delay_loop digest global_defs interface key
        lb_algo lb_kind misc_path nb_get_retry notification_email notification_email_from notify password
        path persistence_timeout preempt priority protocol real_server smtp_connect_timeout smtp_server
        sorry_server state url virtual_ipaddress virtual_router_id virtual_server vrrp_instance weight
    """,
    "0.5.5": """
        lvs_sync_daemon_interface
    """,
    "0.5.7": """
        persistence_granularity smtp_alert
    """,
    "0.5.8": """
        connect_port virtualhost
    """,
    "0.5.9": """
        notify_backup notify_fault notify_master virtual_ipaddress_excluded
    """,
    "0.6.1": """
        mcast_src_ip vrrp_sync_group
    """,
    "0.6.4": """
        group
    """,
    "0.6.8": """
        inhibit_on_failure
    """,
    "0.7.1": """
        garp_master_delay
    """,
    "0.7.6": """
        status_code
    """,
    "1.0.0": """
        ha_suspend notify_down notify_up
    """,
    "1.0.1": """
        static_routes track_interface virtual_routes
    """,
    "1.0.2": """
        virtual_server_group
    """,
    "1.1.0": """
        misc_timeout static_ipaddress
    """,
    "1.1.2": """
        bindto
    """,
    "1.1.5": """
        lvs_method lvs_sched
    """,
    "1.1.10": """
        SMTP_CHECK connect_ip dont_track_primary helo_name host misc_dynamic nopreempt preempt_delay retry
        router_id
    """,
    "1.1.13": """
        interval lthreshold notify_stop script track_script uthreshold vrrp_script
    """,
    "1.1.16": """
        alpha hysteresis omega quorum quorum_down quorum_up
    """,
    "1.1.18": """
        fall linkbeat_use_polling rise
    """,
    "1.2.1": """
        native_ipv6
    """,
    "1.2.3": """
        global_tracking use_vmac
    """,
    "1.2.5": """
        enable_traps
    """,
    "1.2.6": """
        timeout
    """,
    "1.2.8": """
        ops unicast_peer
    """,
    "1.2.10": """
        garp_master_refresh unicast_src_ip vmac_xmit_base vrrp_mcast_group4 vrrp_mcast_group6
    """,
    "1.2.13": """
        bind_port fwmark sorry_server_inhibit warmup
    """,
    "1.2.14": """
        garp_master_refresh_repeat garp_master_repeat
    """,
    "1.2.17": """
        accept version
    """,
    "1.2.20": """
        checker_no_swap checker_priority enable_snmp_checker enable_snmp_keepalived enable_snmp_rfc
        enable_snmp_rfcv2 enable_snmp_rfcv3 garp_lower_prio_delay garp_lower_prio_repeat ip_family
        lower_prio_no_advert lvs_sync_daemon persistence_engine skip_check_adv_addr smtp_helo_name
        snmp_socket static_rules strict_mode virtual_rules vrrp_check_unicast_src vrrp_garp_lower_prio_delay
        vrrp_garp_lower_prio_repeat vrrp_garp_master_delay vrrp_garp_master_refresh
        vrrp_garp_master_refresh_repeat vrrp_garp_master_repeat vrrp_ipsets vrrp_iptables
        vrrp_lower_prio_no_advert vrrp_no_swap vrrp_priority vrrp_skip_check_adv_addr vrrp_strict
        vrrp_version
    """,
    "1.2.21": """
        garp_group garp_interval gna_interval interfaces vrrp_garp_interval vrrp_gna_interval
    """,
    "1.2.23": """
        lvs_flush
    """,
    "1.2.24": """
        default_interface instance lvs_timeouts net_namespace use_pid_dir
    """,
    "1.3.0": """
        DNS_CHECK enable_dbus enable_script_security flag-1 flag-2 flag-3 hashed name namespace_with_ipsets
        no_accept promote_secondaries script_user sh-fallback sh-port type user
    """,
    "1.3.2": """
        init_fail
    """,
    "1.3.5": """
        higher_prio_send_advert vrrp_higher_prio_send_advert
    """,
    "1.3.6": """
        lvs_notify_fifo lvs_notify_fifo_script notify_fifo notify_fifo_script sorry_server_lvs_method
        vrrp_notify_fifo vrrp_notify_fifo_script
    """,
    "1.3.7": """
        bind_if dbus_service_name old_unicast_checksum
    """,
    "1.4.3": """
        enable_sni
    """,
    "2.0.0": """
        BFD_CHECK bfd_instance bfd_no_swap bfd_priority bfd_rlimit_rtime bfd_rt_priority checker
        checker_rlimit_rtime checker_rt_priority child_wait_time dynamic_interfaces enable_snmp_vrrp file
        hoplimit idle_tx init_file lvs_netlink_cmd_rcv_bufs lvs_netlink_cmd_rcv_bufs_force
        lvs_netlink_monitor_rcv_bufs lvs_netlink_monitor_rcv_bufs_force max_hops min_rx min_tx multiplier
        neighbor_ip neighbour_ip no_checker_emails no_email_faults passive rs_init_notifies
        smtp_alert_checker smtp_alert_vrrp source_ip sync_group_tracking_weight track_bfd track_file
        track_src_ip ttl vrrp vrrp_netlink_cmd_rcv_bufs vrrp_netlink_cmd_rcv_bufs_force
        vrrp_netlink_monitor_rcv_bufs vrrp_netlink_monitor_rcv_bufs_force vrrp_rlimit_rtime vrrp_rt_priority
        vrrp_track_file
    """,
    "2.0.3": """
        kernel_rx_buf_size track_group vrrp_rx_bufs_multiplier vrrp_rx_bufs_policy
    """,
    "2.0.6": """
        notify_master_rx_lower_pri
    """,
    "2.0.7": """
        regex regex_max_offset regex_min_offset regex_no_match regex_options regex_stack
    """,
    "2.0.9": """
        umask
    """,
    "2.0.11": """
        checker_log_all_failures delay full_command log_all_failures nftables nftables_counters
        nftables_ifindex nftables_priority process process_monitor_rcv_bufs process_monitor_rcv_bufs_force
        track_process vrrp_track_process
    """,
    "2.0.12": """
        vrrp_min_garp
    """,
    "2.0.13": """
        linkbeat_interfaces
    """,
    "2.0.14": """
        vrrp_startup_delay
    """,
    "2.0.15": """
        lvs_flush_onstop random_seed
    """,
    "2.0.16": """
        bfd_process_name fork_delay log_unknown_vrids lvs_process_name notify_priority_changes param_match
        process_name process_names quorum_max terminate_delay vrrp_notify_priority_changes vrrp_process_name
    """,
    "2.0.17": """
        bfd_cpu_affinity checker_cpu_affinity fast_recovery http_protocol use_ipvlan vrrp_cpu_affinity
    """,
    "2.0.20": """
        mh-fallback mh-port
    """,
    "2.1.0": """
        FILE_CHECK PING_CHECK UDP_CHECK bfd_rlimit_rttime checker_rlimit_rttime check_unicast_src
        max_auto_priority min_auto_priority_delay net_namespace_ipvs notify_deleted reload_repeat
        reload_time_file require_reply shutdown_script shutdown_script_timeout startup_script
        startup_script_timeout unicast_ttl vrrp_rlimit_rttime
    """,
    "2.2.0": """
        checker_process_name disable_local_igmp include_check lvs_flush_on_stop max_reply_length
        min_reply_length payload reload_check_config reload_file tmp_config_directory use_vmac_addr
        vmac_addr_prefix vmac_garp_intvl vmac_prefix vrrp_vmac_garp_intvl
    """,
    "2.2.2": """
        nftables_ipvs nftables_ipvs_priority nftables_ipvs_start_fwmark
    """,
    "2.2.3": """
        config_save_dir data_use_instance down_timer_adverts garp_extra_if interface_up_down_delays
        snmp_name vrrp_down_timer_adverts vrrp_garp_extra_if
    """,
    "2.2.5": """
        fifo_write_vrrp_states_on_reload mcast_dst_ip unicast_fault_no_peer vrf
    """,
    "2.2.8": """
        json_version multihop no_virtual_ipaddress timer_expired_backup tls_compliant v3_checksum_as_v2
    """,
    "2.3.0": """
        dbus_no_interface_name snmp_rs_stats_update_interval snmp_vs_stats_update_interval use_symlink_paths
    """,
    "2.3.2": """
        iproute_etc_dir iproute_usr_dir thread_timer_expired
    """,
    "2.3.3": """
        json_dump_file owner_ignore_adverts state_dump_file stats_dump_file vrrp_owner_ignore_adverts
    """,
    "2.4.0": """
        active_key anti_replay auth_hmac mode time_window vrrp_delay_after_boot
    """,
    "after 2.4.3": """
        set_supplementary_groups sni_name
    """,
}

CENSUS: Final = {word: release for release, names in _BY_RELEASE.items() for word in names.split()}
"""Keyword → keepalived release that first had it."""

REMOVED: Final = {
    "nat_mask": "keepalived dropped it in 1.2.19, and it never had an effect on a modern kernel",
    "plugin_dir": "keepalived dropped it in 1.2.19",
    "CI-LINUX": "keepalived dropped it in 1.1.4",
    "real_group": "keepalived dropped it in 1.0.0",
    "real_server_group": "keepalived dropped it in 1.0.0",
    "sync_instance": "keepalived dropped it in 0.5.9; use a vrrp_sync_group",
}
"""Keywords that old files still carry → why they do nothing."""
