-- Questions of a NOC, for DuckDB. Before them: `fnm-bus schemas ddl duckdb`, whose views
-- show each event once. Times are UTC.

-- attacks_per_hostgroup_and_minute
SELECT date_trunc('minute', receipt.received_at) AS minute, attack_details.host_group AS hostgroup,
  count(*) AS attacks, sum(attack_details.total_incoming_pps) AS pps
FROM host WHERE action = 'ban' GROUP BY ALL ORDER BY ALL;

-- top_targets: the hosts with the most bans, and the largest ban of each
SELECT ip, count(*) AS bans, max(attack_details.total_incoming_pps) AS pps
FROM host WHERE action = 'ban' GROUP BY ip ORDER BY bans DESC, pps DESC, ip LIMIT 10;

-- top_ports: of the packet samples of the bans; every sample stands for many packets
SELECT sample.protocol, sample.destination_port AS port, sum(sample.packets * sample.sample_ratio) AS packets
FROM (SELECT unnest(packet_dump_detailed) AS sample FROM host WHERE action = 'ban')
WHERE sample.destination_port IS NOT NULL GROUP BY ALL ORDER BY packets DESC, port LIMIT 10;

-- ban_durations: from a ban to the next unban; a ban that is followed by a ban has lost its unban
SELECT ip, sensor, banned_at, epoch_us(next_at - banned_at) // 1000000 AS seconds
FROM (SELECT ip, action, receipt.sensor AS sensor, receipt.received_at AS banned_at,
    lead(action) OVER calls AS next_action, lead(receipt.received_at) OVER calls AS next_at
  FROM host WHERE action IN ('ban', 'unban')
  WINDOW calls AS (PARTITION BY receipt.sensor, ip ORDER BY receipt.sequence))
WHERE action = 'ban' AND next_action = 'unban' ORDER BY banned_at, ip;

-- events_once: the number of events; the views remove what was delivered twice
SELECT action, count(*) AS events FROM host GROUP BY action ORDER BY action;

-- in_force: the measures that a system lists, by the last report of its enforcer
SELECT reports.key, reports."by" AS enforcer, reports."at" AS since, mitigation.customer, mitigation.hostgroup
FROM (SELECT * FROM audit WHERE action IN ('in-force', 'withdrawn')
  QUALIFY row_number() OVER (PARTITION BY key, "by" ORDER BY "at" DESC) = 1) AS reports
LEFT JOIN mitigation ON mitigation.key = reports.key
WHERE reports.action = 'in-force' ORDER BY reports.key, enforcer;

-- seconds_to_in_force: from the receipt of an event to the first report of its measure
SELECT events.target, wanted.key, min(reports."at") AS in_force_at,
  epoch_us(min(reports."at") - min(events.received_at)) // 1000 AS milliseconds
FROM (SELECT receipt.event_id AS event_id, receipt.received_at AS received_at, ip AS target FROM host
  UNION ALL SELECT receipt.event_id, receipt.received_at, hostgroup_name FROM hostgroup) AS events
JOIN audit AS wanted ON wanted.event_id = events.event_id AND wanted.action = 'wanted'
JOIN audit AS reports ON reports.key = wanted.key AND reports.action = 'in-force' AND reports."at" >= wanted."at"
GROUP BY events.event_id, events.target, wanted.key ORDER BY in_force_at, wanted.key;

-- carpet_bombing: 20 hosts or more of one hostgroup or one IPv4 /24 within a minute
WITH bans AS (
  SELECT ip, receipt.received_at AS received_at, 'hostgroup ' || attack_details.host_group AS place
  FROM host WHERE action = 'ban' AND attack_details.host_group <> 'global'
  UNION ALL
  SELECT ip, receipt.received_at, 'network ' || regexp_extract(ip, '^(\d+\.\d+\.\d+)\.', 1) || '.0/24'
  FROM host WHERE action = 'ban' AND ip NOT LIKE '%:%'
)
SELECT place, max(hosts) AS hosts FROM (
  SELECT place, count(DISTINCT ip) OVER (PARTITION BY place ORDER BY received_at
    RANGE BETWEEN INTERVAL 59 SECONDS PRECEDING AND CURRENT ROW) AS hosts FROM bans)
GROUP BY place HAVING max(hosts) >= 20 ORDER BY place;
