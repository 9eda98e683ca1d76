-- Questions of a NOC, for ClickHouse. Before them: `fnm-bus schemas ddl clickhouse`.
-- FINAL shows each event once, and the newest record of a compacted key. Times are UTC.

-- attacks_per_hostgroup_and_minute
SELECT toStartOfMinute(receipt.received_at) AS minute, attack_details.host_group AS hostgroup,
  count() AS attacks, sum(attack_details.total_incoming_pps) AS pps
FROM host FINAL WHERE action = 'ban' GROUP BY minute, hostgroup ORDER BY minute, hostgroup;

-- top_targets: the hosts with the most bans, and the largest ban of each
SELECT ip, count() AS bans, max(attack_details.total_incoming_pps) AS pps
FROM host FINAL WHERE action = 'ban' GROUP BY ip ORDER BY bans DESC, pps DESC, ip LIMIT 10;

-- top_ports: of the packet samples of the bans; every sample stands for many packets
SELECT sample.protocol AS protocol, sample.destination_port AS port, sum(sample.packets * sample.sample_ratio) AS packets
FROM host FINAL ARRAY JOIN packet_dump_detailed AS sample
WHERE action = 'ban' AND sample.destination_port IS NOT NULL
GROUP BY protocol, port ORDER BY packets DESC, port LIMIT 10;

-- ban_durations: from a ban to the next unban; a ban that is followed by a ban has lost its unban
SELECT ip, sensor, banned_at, dateDiff('second', banned_at, next_at) AS seconds
FROM (SELECT ip, action, receipt.sensor AS sensor, receipt.received_at AS banned_at,
    leadInFrame(action) OVER calls AS next_action, leadInFrame(receipt.received_at) OVER calls AS next_at
  FROM host FINAL WHERE action IN ('ban', 'unban')
  WINDOW calls AS (PARTITION BY receipt.sensor, ip ORDER BY receipt.sequence
    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))
WHERE action = 'ban' AND next_action = 'unban' ORDER BY banned_at, ip;

-- events_once: the number of events
SELECT action, count() AS events FROM host FINAL GROUP BY action ORDER BY action;

-- in_force: the measures that a system lists, by the last report of its enforcer
SELECT reports.key AS key, reports.enforcer AS enforcer, reports.since AS since, mitigation.customer, mitigation.hostgroup
FROM (SELECT key, "by" AS enforcer, argMax(action, "at") AS last, max("at") AS since
  FROM audit FINAL WHERE action IN ('in-force', 'withdrawn') GROUP BY key, enforcer) AS reports
LEFT JOIN (SELECT * FROM mitigation FINAL) AS mitigation ON mitigation.key = reports.key
WHERE reports.last = 'in-force' ORDER BY key, enforcer;

-- seconds_to_in_force: from the receipt of an event to the first report of its measure
SELECT events.target AS target, wanted.key AS key, min(reports."at") AS in_force_at,
  dateDiff('millisecond', min(events.received_at), min(reports."at")) AS milliseconds
FROM (SELECT receipt.event_id AS event_id, receipt.received_at AS received_at, ip AS target FROM host FINAL
  UNION ALL SELECT receipt.event_id, receipt.received_at, hostgroup_name FROM hostgroup FINAL) AS events
JOIN (SELECT event_id, key, "at" FROM audit FINAL WHERE action = 'wanted') AS wanted ON wanted.event_id = events.event_id
JOIN (SELECT key, "at" FROM audit FINAL WHERE action = 'in-force') AS reports ON reports.key = wanted.key
WHERE reports."at" >= wanted."at" GROUP BY events.event_id, target, key ORDER BY in_force_at, key;

-- carpet_bombing: 20 hosts or more of one hostgroup or one IPv4 /24 within a minute
WITH bans AS (
  SELECT ip, receipt.received_at AS received_at, 'hostgroup ' || assumeNotNull(attack_details.host_group) AS place
  FROM host FINAL WHERE action = 'ban' AND attack_details.host_group <> 'global'
  UNION ALL
  SELECT ip, receipt.received_at, 'network ' || extract(ip, '^(\\d+\\.\\d+\\.\\d+)\\.') || '.0/24'
  FROM host FINAL WHERE action = 'ban' AND ip NOT LIKE '%:%'
)
SELECT place, max(hosts) AS hosts FROM (
  SELECT place, uniqExact(ip) OVER (PARTITION BY place ORDER BY toUnixTimestamp(received_at)
    RANGE BETWEEN 59 PRECEDING AND CURRENT ROW) AS hosts FROM bans)
GROUP BY place HAVING hosts >= 20 ORDER BY place;
