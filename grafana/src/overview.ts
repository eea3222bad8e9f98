import type { DashboardSpec } from './frame.ts'
import { bars, events, lines, number, states } from './panels.ts'
import {
  answered,
  count,
  lifetime,
  share,
  pulls,
  rate,
  recent,
  registries,
  series,
  spared,
  sum,
  total,
  totalQuantile,
} from './promql.ts'
import { outcomeColours, stateMappings } from './words.ts'

const served = 'layover_served_bytes_total'
const fetched = 'layover_upstream_bytes_total'
const requests = 'layover_requests_total'
const gross = 'layover_savings_gross_money_total'
const cost = 'layover_savings_cost_money_total'

/** A counter of a cause that has not occurred does not exist; then nothing is taken off. */
const lessCost = (of: typeof rate): string =>
  `${sum(of(gross), 'currency')} - (${sum(of(cost), 'currency')} or ${sum(of(gross), 'currency')} * 0)`

/** For those who pay, and for those who ask whether it is worth it. */
export const overview: DashboardSpec = {
  uid: 'layover-overview',
  title: 'Layover / Overview',
  description: 'What the cache for container registries saves, in bytes and in money, and whether it is well.',
  last: '24h',
  rows: [
    {
      title: 'What it saves, in the chosen time',
      panels: [
        number({
          title: 'Hit rate',
          description:
            'Of the requests for images that were answered, the share that started no download at a registry. 80 % and more is usual once the images in use have been pulled; new images and a small cache lower it.',
          queries: [
            {
              expr: share(sum(total(requests, pulls, spared)), sum(total(requests, pulls, answered))),
              legend: 'hit rate',
            },
          ],
          unit: 'percentunit',
          decimals: 1,
          min: 0,
          max: 1,
          thresholds: ['orange', [0.5, 'yellow'], [0.8, 'green']],
          empty: 'no pulls',
          width: 4,
          height: 5,
        }),
        number({
          title: 'Saved traffic',
          description:
            'Bytes that clients got, less the bytes that came from registries. All that was fetched counts: logins, repeated and broken downloads, prefetching. After a warm-up it can be below 0 for a while.',
          queries: [{ expr: `${sum(total(served, registries))} - ${sum(total(fetched))}`, legend: 'saved' }],
          unit: 'bytes',
          decimals: 1,
          thresholds: ['orange', [0, 'green']],
          empty: 'no pulls',
          width: 4,
          height: 5,
        }),
        number({
          title: 'Saved money',
          description:
            'The saved traffic at the prices of the section `pricing` of the configuration, less what Layover itself causes: requests to the bucket, storage, traffic between zones. No data is fine: then no price is configured. The arithmetic: docs/savings.md.',
          queries: [{ expr: lessCost(total), legend: '{{currency}}' }],
          unit: 'short',
          decimals: 2,
          thresholds: ['orange', [0, 'green']],
          empty: 'no prices configured',
          width: 4,
          height: 5,
        }),
        number({
          title: 'Pulls avoided',
          description:
            'Manifest requests that did not become a pull at the registry. Pulls are what Docker Hub and others limit, per account and hour.',
          queries: [{ expr: count(total('layover_upstream_pulls_avoided_total')), legend: 'avoided' }],
          unit: 'short',
          thresholds: ['text', [1, 'green']],
          empty: 'none',
          width: 4,
          height: 5,
        }),
        number({
          title: 'Survived an outage',
          description:
            'Pulls by tag that were answered from the cache because the registry could not answer: down, too slow, or over its limit. Without the cache each would have failed. Pulls by digest need no registry at all and are not counted here.',
          queries: [{ expr: count(total(requests, 'outcome="stale"')), legend: 'survived' }],
          unit: 'short',
          thresholds: ['text', [1, 'blue']],
          empty: 'none',
          width: 4,
          height: 5,
        }),
        number({
          title: 'Saved since the first start',
          description:
            'Served less fetched since the cache was first started on its stores; restarts do not reset it. With Redis the replicas share these totals. The chosen time does not matter here.',
          queries: [
            {
              expr: `${lifetime('layover_lifetime_served_bytes')} - ${lifetime('layover_lifetime_upstream_bytes')}`,
              legend: 'saved',
            },
          ],
          unit: 'bytes',
          decimals: 1,
          thresholds: ['orange', [0, 'green']],
          empty: 'no pulls',
          width: 4,
          height: 5,
        }),
        lines({
          title: 'To clients and from registries',
          description:
            'The space between the two lines is what is saved. Lines that lie on each other: the cache does not help now.',
          queries: [
            { expr: sum(rate(served, registries)), legend: 'to clients' },
            { expr: sum(rate(fetched)), legend: 'from registries' },
          ],
          unit: 'binBps',
          min: 0,
          colours: { 'to clients': 'green', 'from registries': 'orange' },
          width: 12,
        }),
        bars({
          title: 'Saved, by registry',
          description:
            'Served less fetched in the chosen time. Below 0: more was fetched than anyone asked for, as by a warm-up.',
          queries: [
            {
              expr: `sort_desc(${sum(total(served, registries), 'upstream')} - ${sum(total(fetched), 'upstream')})`,
              legend: '{{upstream}}',
            },
          ],
          unit: 'bytes',
          thresholds: ['orange', [0, 'green']],
          width: 6,
        }),
        bars({
          title: 'Where the bytes came from',
          description:
            'Bytes that clients got in the chosen time: from memory or disk of an instance, from the bucket (s3), from another replica (peer), straight from the bucket by a redirect, or from a registry while they were downloaded (fill).',
          queries: [{ expr: `sort_desc(${sum(total(served, registries), 'source')})`, legend: '{{source}}' }],
          unit: 'bytes',
          thresholds: ['blue'],
          width: 6,
        }),
        lines({
          title: 'Hit rate',
          description:
            'Of requests: the share that started no download. Of bytes: the share that did not come over the link to a registry. It falls when new images are rolled out, and rises again.',
          queries: [
            {
              expr: share(sum(rate(requests, pulls, spared)), sum(rate(requests, pulls, answered))),
              legend: 'requests',
            },
            { expr: `clamp_min(1 - ${share(sum(rate(fetched)), sum(rate(served, registries)))}, 0)`, legend: 'bytes' },
          ],
          unit: 'percentunit',
          min: 0,
          max: 1,
          colours: { requests: 'green', bytes: 'blue' },
          width: 6,
        }),
        lines({
          title: 'Money, per hour',
          description:
            'What the traffic to clients would have cost, and what it cost by cause: the link to the registries (upstream), and what Layover adds. No data is fine: then no price is configured.',
          queries: [
            { expr: `${sum(rate(gross), 'currency')} * 3600`, legend: 'without Layover, {{currency}}' },
            { expr: `${sum(rate(cost), 'cause', 'currency')} * 3600`, legend: '{{cause}}, {{currency}}' },
          ],
          unit: 'short',
          min: 0,
          empty: 'no prices configured',
          width: 6,
        }),
        lines({
          title: 'Saved money, adding up',
          description:
            'What has been saved, less what it cost, since each instance was started; a restart begins at 0. No data is fine: then no price is configured.',
          queries: [{ expr: sum(series('layover_savings_net_money'), 'currency'), legend: '{{currency}}' }],
          unit: 'short',
          decimals: 2,
          empty: 'no prices configured',
          width: 6,
        }),
        lines({
          title: 'Pulls avoided, by registry',
          description:
            'Manifest requests a second that the registry did not see. Compare with its limit on the dashboard of the registries.',
          queries: [{ expr: sum(rate('layover_upstream_pulls_avoided_total'), 'upstream'), legend: '{{upstream}}' }],
          unit: 'reqps',
          min: 0,
          width: 6,
          stacked: true,
        }),
      ],
    },
    {
      title: 'Whether it is well',
      panels: [
        number({
          title: 'Instances that answer',
          description:
            'The share of the instances that Prometheus reaches now. Below 100 %: see the runbook of LayoverInstanceDown.',
          queries: [
            {
              expr: `sum(up{job=~"$job", instance=~"$instance"}) / count(up{job=~"$job", instance=~"$instance"})`,
              legend: 'up',
            },
          ],
          unit: 'percentunit',
          decimals: 0,
          thresholds: ['red', [0.5, 'orange'], [1, 'green']],
          empty: 'no instances',
          width: 4,
        }),
        number({
          title: 'Pulls answered',
          description:
            'The share of requests for images that did not end in a server error (5xx). What does not exist, or may not be read, counts as answered. Clients that are refused fall back to the registry, if they are allowed to.',
          queries: [
            {
              expr: `1 - ${share(`(${sum(total('layover_responses_total', pulls, 'code=~"5.."'))} or vector(0))`, sum(total('layover_responses_total', pulls)))}`,
              legend: 'answered',
            },
          ],
          unit: 'percentunit',
          decimals: 2,
          thresholds: ['red', [0.95, 'orange'], [0.99, 'green']],
          empty: 'no pulls',
          width: 4,
        }),
        number({
          title: 'Registries out of reach',
          description: 'Registries that some instance cannot use now. What is cached from them is served all the same.',
          queries: [
            {
              expr: `count(max by (upstream) (${series('layover_upstream_state')}) > 0) or vector(0)`,
              legend: 'out of reach',
            },
          ],
          unit: 'short',
          thresholds: ['green', [1, 'orange']],
          width: 4,
        }),
        number({
          title: 'First byte when cached',
          description:
            'The median time, in the chosen time, to the first byte of a manifest that is in the cache. A few milliseconds; more than 100 ms means that the instances are busy.',
          queries: [
            {
              expr: totalQuantile(
                0.5,
                'layover_time_to_first_byte_seconds',
                [],
                'kind=~"manifest_tag|manifest_digest"',
                'outcome="hit"',
              ),
              legend: 'median',
            },
          ],
          unit: 's',
          thresholds: ['green', [0.1, 'orange'], [1, 'red']],
          empty: 'no pulls',
          width: 4,
        }),
        number({
          title: 'Room used',
          description:
            'How full the fullest cache is. A full cache is how a cache looks: what was not used for longest makes room.',
          queries: [
            {
              expr: `max((${series('layover_storage_blob_bytes')} + ${series('layover_storage_manifest_bytes')} + ${series('layover_storage_reserved_bytes')}) / ${series('layover_storage_max_bytes')})`,
              legend: 'used',
            },
          ],
          unit: 'percentunit',
          decimals: 0,
          thresholds: ['green'],
          width: 4,
        }),
        number({
          title: 'Downloads running',
          description: 'Layers that come from a registry at this moment, each once, however many clients wait for it.',
          queries: [{ expr: sum(series('layover_fills_running')), legend: 'running' }],
          unit: 'short',
          thresholds: ['text'],
          width: 4,
        }),
        lines({
          title: 'How requests were answered',
          description:
            'hit: from the cache. joined: from a download that was running already. fill: started the download. revalidated: the registry confirmed the tag. stale: the registry could not. redirected: sent to the bucket. denied, error: refused or not answered, clients that ask for what does not exist included.',
          queries: [{ expr: sum(rate(requests, registries), 'outcome'), legend: '{{outcome}}' }],
          unit: 'reqps',
          min: 0,
          colours: outcomeColours,
          width: 12,
          stacked: true,
        }),
        states({
          title: 'Registries',
          description:
            'As the worst-off instance sees them. Out of reach: it is only tried now and then; what is cached is served, by tag up to `maxStale`.',
          queries: [{ expr: `max by (upstream) (${series('layover_upstream_state')})`, legend: '{{upstream}}' }],
          unit: 'short',
          mappings: stateMappings,
          width: 12,
        }),
        events({
          title: 'Pulls that survived an outage',
          description:
            'When registries could not answer and the cache did: pulls by tag, by registry. A hump that lasts for long means that new pushes are not seen.',
          queries: [{ expr: sum(recent(requests, 'outcome="stale"', registries), 'upstream'), legend: '{{upstream}}' }],
          unit: 'short',
          width: 12,
        }),
        lines({
          title: 'Server errors to clients',
          description:
            'Requests for images that were answered with 5xx, as a share of all. Above 1 % for long: see the runbook of LayoverPullErrors.',
          queries: [
            {
              expr: share(
                sum(rate('layover_responses_total', pulls, 'code=~"5.."')),
                sum(rate('layover_responses_total', pulls)),
              ),
              legend: 'errors',
            },
          ],
          unit: 'percentunit',
          min: 0,
          thresholds: ['green', [0.01, 'red']],
          colours: { errors: 'red' },
          empty: 'no errors',
          marks: true,
          width: 12,
        }),
      ],
    },
  ],
}
