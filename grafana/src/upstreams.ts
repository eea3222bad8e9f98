import type { DashboardSpec } from './frame.ts'
import { bars, events, lines, rowsBy, states } from './panels.ts'
import {
  answered,
  count,
  share,
  lifetime,
  max,
  min,
  pulls,
  quantile,
  rate,
  recent,
  series,
  spared,
  sum,
  total,
  totalQuantile,
} from './promql.ts'
import { stateMappings } from './words.ts'

const chosen = 'upstream=~"$upstream"'
// The dashboard is about registries; what belongs to none is on the others.
const configured = `${chosen}, upstream!~"none|other"`
const served = 'layover_served_bytes_total'
const fetched = 'layover_upstream_bytes_total'
const requests = 'layover_requests_total'
const left = `${series('layover_upstream_ratelimit_remaining', chosen)} / ${series('layover_upstream_ratelimit_limit', chosen)}`

/** One registry beside the other; a click in the table leaves one. */
export const upstreams: DashboardSpec = {
  uid: 'layover-upstreams',
  title: 'Layover / Registries',
  description: 'Each registry by itself: what it is asked, what that saves, how it answers.',
  last: '24h',
  choosesUpstream: true,
  rows: [
    {
      title: 'In the chosen time',
      panels: [
        rowsBy({
          title: 'Registries',
          description:
            'One row for each registry; a click on its name shows it alone. State and limit are of now, all else of the chosen time. Most registries do not tell their limit.',
          by: 'upstream',
          byTitle: 'Registry',
          link: {
            title: 'Show this one alone',
            url: '/d/layover-upstreams?${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&var-upstream=${__value.raw}&${__url_time_range}',
          },
          columns: [
            {
              title: 'State',
              expr: max(series('layover_upstream_state', chosen), 'upstream'),
              unit: 'short',
              mappings: stateMappings,
            },
            { title: 'Requests', expr: count(total(requests, configured), 'upstream'), unit: 'short' },
            {
              title: 'Hit rate',
              expr: share(
                sum(total(requests, configured, pulls, spared), 'upstream'),
                sum(total(requests, configured, pulls, answered), 'upstream'),
              ),
              unit: 'percentunit',
              thresholds: ['orange', [0.5, 'yellow'], [0.8, 'green']],
            },
            { title: 'To clients', expr: sum(total(served, configured), 'upstream'), unit: 'bytes' },
            { title: 'Fetched', expr: sum(total(fetched, configured), 'upstream'), unit: 'bytes' },
            {
              title: 'Saved',
              expr: `${sum(total(served, configured), 'upstream')} - ${sum(total(fetched, configured), 'upstream')}`,
              unit: 'bytes',
              thresholds: ['orange', [0, 'green']],
            },
            {
              title: 'Pulls avoided',
              expr: count(total('layover_upstream_pulls_avoided_total', chosen), 'upstream'),
              unit: 'short',
            },
            {
              title: 'Failed downloads',
              expr: count(total('layover_fills_total', chosen, 'outcome="failed"'), 'upstream'),
              unit: 'short',
              thresholds: ['green', [1, 'orange'], [100, 'red']],
            },
            {
              title: 'Manifest p99',
              expr: totalQuantile(
                0.99,
                'layover_upstream_request_duration_seconds',
                ['upstream'],
                chosen,
                'kind="manifest"',
              ),
              unit: 's',
              thresholds: ['green', [1, 'orange'], [5, 'red']],
            },
            {
              title: 'Limit left',
              expr: min(left, 'upstream'),
              unit: 'percentunit',
              thresholds: ['red', [0.1, 'orange'], [0.3, 'green']],
            },
          ],
          width: 24,
          height: 10,
        }),
      ],
    },
    {
      title: 'What it saves',
      panels: [
        lines({
          title: 'To clients',
          description: 'Bytes of this registry’s content that clients got.',
          queries: [{ expr: sum(rate(served, configured), 'upstream'), legend: '{{upstream}}' }],
          unit: 'binBps',
          min: 0,
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'From the registry',
          description:
            'All bytes that came over the link: content, logins, repeated and broken downloads, prefetching.',
          queries: [{ expr: sum(rate(fetched, configured), 'upstream'), legend: '{{upstream}}' }],
          unit: 'binBps',
          min: 0,
          stacked: true,
          width: 8,
        }),
        lines({
          title: 'Hit rate',
          description: 'Of answered requests for images, the share that started no download.',
          queries: [
            {
              expr: share(
                sum(rate(requests, configured, pulls, spared), 'upstream'),
                sum(rate(requests, configured, pulls, answered), 'upstream'),
              ),
              legend: '{{upstream}}',
            },
          ],
          unit: 'percentunit',
          min: 0,
          max: 1,
          width: 8,
        }),
        lines({
          title: 'Saved money, per hour',
          description:
            'What the traffic to clients would have cost on this link, less what the link cost. What Layover itself causes belongs to no registry and is on the overview. No data is fine: then this registry’s link has no price.',
          queries: [
            {
              expr: `${sum(rate('layover_savings_gross_money_total', chosen), 'upstream', 'link', 'currency')} * 3600 * on (upstream) group_left () (1 - ${share(sum(rate(fetched, configured), 'upstream'), sum(rate(served, configured), 'upstream'))})`,
              legend: '{{upstream}} by {{link}}, {{currency}}',
            },
          ],
          unit: 'short',
          empty: 'no prices configured',
          width: 8,
        }),
        lines({
          title: 'Saved since the start, by link',
          description:
            'Net bytes since each instance was started, by the link that the configuration names. It may be below 0 after a warm-up.',
          queries: [
            {
              expr: sum(series('layover_savings_net_bytes', chosen), 'upstream', 'link'),
              legend: '{{upstream}} by {{link}}',
            },
          ],
          unit: 'bytes',
          width: 8,
        }),
        lines({
          title: 'Traffic by link',
          description:
            'The same traffic by the link that the configuration names for the registry: what clients got, and what was fetched for them.',
          queries: [
            { expr: sum(rate('layover_savings_gross_bytes_total', chosen), 'link'), legend: '{{link}} to clients' },
            { expr: sum(rate('layover_savings_cost_bytes_total', chosen), 'link'), legend: '{{link}} fetched' },
          ],
          unit: 'binBps',
          min: 0,
          width: 8,
        }),
        lines({
          title: 'Pulls avoided',
          description: 'Manifest requests a second that did not become a pull at the registry.',
          queries: [
            { expr: sum(rate('layover_upstream_pulls_avoided_total', chosen), 'upstream'), legend: '{{upstream}}' },
          ],
          unit: 'reqps',
          min: 0,
          stacked: true,
          width: 8,
        }),
        bars({
          title: 'Saved since the first start',
          description:
            'Served less fetched since the totals began; restarts do not reset them, and with Redis the replicas share them. Of all registries.',
          queries: [
            {
              expr: `sort_desc(${lifetime('layover_lifetime_served_bytes', 'upstream')} - ${lifetime('layover_lifetime_upstream_bytes', 'upstream')})`,
              legend: '{{upstream}}',
            },
          ],
          unit: 'bytes',
          thresholds: ['orange', [0, 'green']],
          width: 8,
        }),
        bars({
          title: 'Pulls avoided since the first start',
          description:
            'Manifest requests that did not become a pull at the registry, since the totals began. Of all registries.',
          queries: [
            { expr: `sort_desc(${lifetime('layover_lifetime_pulls_avoided', 'upstream')})`, legend: '{{upstream}}' },
          ],
          unit: 'short',
          thresholds: ['green'],
          width: 8,
        }),
      ],
    },
    {
      title: 'How it answers',
      panels: [
        states({
          title: 'State',
          description: 'As the worst-off instance sees it. Runbook: LayoverUpstreamUnreachable.',
          queries: [{ expr: max(series('layover_upstream_state', chosen), 'upstream'), legend: '{{upstream}}' }],
          unit: 'short',
          mappings: stateMappings,
          width: 8,
        }),
        lines({
          title: 'Exchanges by outcome',
          description:
            'Status codes and reasons. 429 is a limit; dns, connect, tls and timeout are the way there; 5xx is theirs.',
          queries: [
            {
              expr: sum(rate('layover_upstream_requests_total', chosen), 'upstream', 'outcome'),
              legend: '{{upstream}} {{outcome}}',
            },
          ],
          unit: 'reqps',
          min: 0,
          width: 8,
        }),
        lines({
          title: 'Time of exchanges, p99',
          description: 'By what was asked. Blobs take as long as their bytes need.',
          queries: [
            {
              expr: quantile(0.99, 'layover_upstream_request_duration_seconds', ['upstream', 'kind'], chosen),
              legend: '{{upstream}} {{kind}}',
              exemplars: true,
            },
          ],
          unit: 's',
          min: 0,
          width: 8,
        }),
        lines({
          title: 'Rate limit',
          description:
            'What the registry says is left, and allowed, in its window. Runbook: LayoverUpstreamLimited. No data is fine: few registries tell.',
          queries: [
            {
              expr: min(series('layover_upstream_ratelimit_remaining', chosen), 'upstream'),
              legend: '{{upstream}} left',
            },
            {
              expr: max(series('layover_upstream_ratelimit_limit', chosen), 'upstream'),
              legend: '{{upstream}} allowed',
            },
          ],
          unit: 'short',
          min: 0,
          empty: 'the registry does not tell',
          width: 8,
        }),
        lines({
          title: 'Logins',
          description: 'Token exchanges by outcome. No data is fine: then the registry asks for no token.',
          queries: [
            {
              expr: sum(rate('layover_token_exchanges_total', chosen), 'upstream', 'outcome'),
              legend: '{{upstream}} {{outcome}}',
            },
          ],
          unit: 'ops',
          min: 0,
          empty: 'no logins',
          width: 8,
        }),
        lines({
          title: 'Tags asked for again',
          description: 'What the registry said when a tag was older than `tagTtl`.',
          queries: [
            {
              expr: sum(rate('layover_revalidations_total', chosen), 'upstream', 'result'),
              legend: '{{upstream}} {{result}}',
            },
          ],
          unit: 'ops',
          min: 0,
          width: 8,
        }),
      ],
    },
    {
      title: 'Downloads and their trouble',
      panels: [
        lines({
          title: 'Running',
          description: 'Downloads at this moment.',
          queries: [{ expr: sum(series('layover_fills_running', chosen), 'upstream'), legend: '{{upstream}}' }],
          unit: 'short',
          min: 0,
          stacked: true,
          width: 8,
        }),
        events({
          title: 'Ended, by outcome',
          description:
            'published: kept. uncached: streamed, not kept. failed: broke. cancelled: nobody waited any more.',
          queries: [
            {
              expr: sum(recent('layover_fills_total', chosen), 'upstream', 'outcome'),
              legend: '{{upstream}} {{outcome}}',
            },
          ],
          unit: 'short',
          width: 8,
        }),
        lines({
          title: 'Duration, p99',
          description: 'Of downloads that were kept.',
          queries: [
            {
              expr: quantile(0.99, 'layover_fill_duration_seconds', ['upstream'], chosen, 'outcome="published"'),
              legend: '{{upstream}}',
            },
          ],
          unit: 's',
          min: 0,
          width: 8,
        }),
        events({
          title: 'Failed and resumed, by reason',
          description:
            'Failed: clients saw a connection that ended early. Resumed: nobody noticed. Runbook: LayoverFillsFailing.',
          queries: [
            {
              expr: sum(recent('layover_fills_failed_total', chosen), 'upstream', 'reason'),
              legend: '{{upstream}} failed: {{reason}}',
            },
            {
              expr: sum(recent('layover_fills_resumed_total', chosen), 'upstream', 'reason'),
              legend: '{{upstream}} resumed: {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'no trouble',
          width: 8,
        }),
        events({
          title: 'Stale answers, by reason',
          description:
            'Tags that were served unconfirmed. Runbook: LayoverStaleServing. No data is fine: then the registry answered.',
          queries: [
            {
              expr: sum(recent('layover_stale_served_total', chosen), 'upstream', 'reason'),
              legend: '{{upstream}} {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'none stale',
          width: 8,
        }),
        events({
          title: 'Refused content',
          description:
            'Wrong digest, wrong size, or no manifest. No client got it as complete. Runbook: LayoverWrongBytes.',
          queries: [
            {
              expr: sum(recent('layover_content_rejected_total', chosen), 'upstream', 'kind', 'reason'),
              legend: '{{upstream}} {{kind}} {{reason}}',
            },
          ],
          unit: 'short',
          empty: 'none refused',
          width: 8,
        }),
      ],
    },
  ],
}
