import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { parse, stringify } from 'yaml'

const source = new URL('../../deploy/prometheus/rules.yml', import.meta.url)

/** deploy/prometheus/rules.yml as the PrometheusRule of deploy/kubernetes/monitoring. */
export function prometheusRule(): string {
  const rule = {
    apiVersion: 'monitoring.coreos.com/v1',
    kind: 'PrometheusRule',
    metadata: { name: 'layover' },
    spec: parse(readFileSync(source, 'utf8')) as unknown,
  }
  return [
    '# Made of ../../prometheus/rules.yml, to be edited there:',
    '# node test/deploy/prometheus-rule.ts > deploy/kubernetes/monitoring/prometheus-rule.yaml',
    stringify(rule, { lineWidth: 0 }),
  ].join('\n')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.stdout.write(prometheusRule())
