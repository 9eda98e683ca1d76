-- Questions of a NOC, for Flink SQL. Before them: `fnm-bus schemas ddl flink`.
-- Each query runs without end, and changes its rows as events arrive. Times are UTC.

-- each event once: the first record with its identifier
CREATE TEMPORARY VIEW host_once AS
SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY receipt.event_id ORDER BY event_time) AS delivery FROM host)
WHERE delivery = 1;

CREATE TEMPORARY VIEW bans AS
SELECT receipt.event_id AS event_id, receipt.sensor AS sensor, receipt.received_at AS received_at, ip,
  attack_details.host_group AS hostgroup, attack_details.total_incoming_pps AS pps, packet_dump_detailed
FROM host_once WHERE action = 'ban';

-- The hosts of a hostgroup and of an IPv4 /24. A record that was delivered twice changes no
-- number of distinct hosts.
CREATE TEMPORARY VIEW places AS
SELECT event_time, ip, 'hostgroup ' || attack_details.host_group AS place
FROM host WHERE action = 'ban' AND attack_details.host_group <> 'global'
UNION ALL
SELECT event_time, ip, 'network ' || REGEXP_EXTRACT(ip, '^(\d+\.\d+\.\d+)\.', 1) || '.0/24'
FROM host WHERE action = 'ban' AND ip NOT LIKE '%:%';

-- attacks_per_hostgroup_and_minute
SELECT TO_TIMESTAMP_LTZ(received_at / 60000000 * 60000, 3) AS `minute`, hostgroup, COUNT(*) AS attacks, SUM(pps) AS pps
FROM bans GROUP BY received_at / 60000000, hostgroup;

-- top_targets: the hosts with the most bans, and the largest ban of each
SELECT ip, bans, pps FROM (
  SELECT *, ROW_NUMBER() OVER (ORDER BY bans DESC, pps DESC, ip) AS place FROM (
    SELECT ip, COUNT(*) AS bans, MAX(pps) AS pps FROM bans GROUP BY ip))
WHERE place <= 10;

-- top_ports: of the packet samples of the bans; every sample stands for many packets
SELECT protocol, port, packets FROM (
  SELECT *, ROW_NUMBER() OVER (ORDER BY packets DESC, port) AS place FROM (
    SELECT protocol, destination_port AS port, SUM(packets * sample_ratio) AS packets
    FROM bans CROSS JOIN UNNEST(packet_dump_detailed)
    WHERE destination_port IS NOT NULL GROUP BY protocol, destination_port))
WHERE place <= 10;

-- ban_durations: from a ban to the next unban; a ban that is followed by a ban has lost its unban
SELECT ip, sensor, TO_TIMESTAMP_LTZ(banned_at / 1000, 3) AS banned_at, (unbanned_at - banned_at) / 1000000 AS seconds
FROM (SELECT receipt.sensor AS sensor, receipt.event_id AS event_id, receipt.received_at AS received_at, ip, action, event_time
  FROM host WHERE action IN ('ban', 'unban'))
MATCH_RECOGNIZE (
  PARTITION BY sensor, ip ORDER BY event_time
  MEASURES ban.received_at AS banned_at, unban.received_at AS unbanned_at
  ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
  PATTERN (ban delivered_again* unban)
  DEFINE ban AS ban.action = 'ban',
    delivered_again AS delivered_again.event_id = ban.event_id,
    unban AS unban.action = 'unban'
);

-- events_once: the number of events
SELECT action, COUNT(*) AS events FROM host_once GROUP BY action;

-- in_force: the measures that a system lists, by the last report of its enforcer
SELECT reports.key, reports.enforcer, reports.since, mitigation.customer, mitigation.hostgroup
FROM (SELECT * FROM (SELECT key, `by` AS enforcer, action, event_time AS since,
    ROW_NUMBER() OVER (PARTITION BY key, `by` ORDER BY event_time DESC) AS age
  FROM audit WHERE action IN ('in-force', 'withdrawn')) WHERE age = 1) AS reports
LEFT JOIN mitigation ON mitigation.key = reports.key
WHERE reports.action = 'in-force';

-- seconds_to_in_force: from the receipt of an event to the first report of its measure
SELECT events.target, wanted.key, TO_TIMESTAMP_LTZ(MIN(reports.`at`) / 1000, 3) AS in_force_at,
  (MIN(reports.`at`) - MIN(events.received_at)) / 1000 AS milliseconds
FROM (SELECT receipt.event_id AS event_id, receipt.received_at AS received_at, ip AS target FROM host
  UNION ALL SELECT receipt.event_id, receipt.received_at, hostgroup_name FROM hostgroup) AS events
JOIN (SELECT event_id, key, `at` FROM audit WHERE action = 'wanted') AS wanted ON wanted.event_id = events.event_id
JOIN (SELECT key, `at` FROM audit WHERE action = 'in-force') AS reports ON reports.key = wanted.key AND reports.`at` >= wanted.`at`
GROUP BY events.event_id, events.target, wanted.key;

-- carpet_bombing: 20 hosts or more of one hostgroup or one IPv4 /24 within a minute
SELECT place, MAX(hosts) AS hosts FROM (
  SELECT window_start, place, COUNT(DISTINCT ip) AS hosts
  FROM TABLE(HOP(TABLE places, DESCRIPTOR(event_time), INTERVAL '10' SECOND, INTERVAL '1' MINUTE))
  GROUP BY window_start, window_end, place)
WHERE hosts >= 20 GROUP BY place;
