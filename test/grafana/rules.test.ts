import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { promtoolFaults } from '../metrics/promtool.ts'
import { alerts, pathOf, read, rules } from './committed.ts'

const sorted = (words: readonly (string | undefined)[]): readonly string[] => words.map(word => word ?? '').sort()

const names = [...new Set(alerts.map(({ alert }) => alert))]

test('each alert says what is wrong, how urgent it is, and which page helps', () => {
  for (const { alert, labels = {}, annotations = {} } of alerts) {
    expect(annotations['runbook_url']).toBe(`docs/runbooks/${alert}.md`)
    expect([alert, Boolean(annotations['summary'] && annotations['description'])]).toEqual([alert, true])
    expect(['warning', 'critical']).toContain(labels['severity'])
  }
})

test('each alert has its page, each page its alert, and the index lists them all', () => {
  const pages = readdirSync(pathOf('docs/runbooks')).filter(file => file !== 'README.md')
  expect(pages.sort()).toEqual(names.map(name => `${name}.md`).sort())
  const index = read('docs/runbooks/README.md')
  const listed = [...index.matchAll(/^\| \[(\w+)\]\((\w+)\.md\) \| ([a-z, ]+) \|/gm)]
  expect(sorted(listed.map(([, name]) => name))).toEqual(sorted(names))
  for (const [, name, page, severity = ''] of listed) {
    expect(page).toBe(name)
    const severities = alerts.filter(({ alert }) => alert === name).map(({ labels }) => labels?.['severity'])
    expect([name, sorted(severity.split(', '))]).toEqual([name, sorted(severities)])
  }
})

test('each page says what it means, what clients notice, how to see more and what to do', () => {
  for (const name of names) {
    const page = read(`docs/runbooks/${name}.md`)
    expect(page.startsWith(`# ${name}\n`)).toBe(true)
    const parts = [...page.matchAll(/^\*\*(.+?):\*\*/gm)].map(([, part]) => part)
    expect([name, parts]).toEqual([name, ['Means', 'Clients notice', 'See more', 'Do']])
  }
})

test('links of the pages lead somewhere', () => {
  const known = new Set(names.map(name => `${name}.md`))
  for (const name of names)
    for (const [, link = ''] of read(`docs/runbooks/${name}.md`).matchAll(/\]\(([^)#]+)[^)]*\)/g))
      expect([name, link.startsWith('../') ? read(`docs/runbooks/${link}`).length > 0 : known.has(link)]).toEqual([
        name,
        true,
      ])
})

test('each alert has a test that sees it fire and one that sees it silent', () => {
  type Case = { readonly alertname: string; readonly exp_alerts: readonly unknown[] }
  const { tests } = parse(read('deploy/prometheus/rules_test.yml')) as { tests: { alert_rule_test: Case[] }[] }
  const cases = tests.flatMap(({ alert_rule_test: list }) => list)
  for (const name of names) {
    const own = cases.filter(({ alertname }) => alertname === name)
    expect([name, own.some(({ exp_alerts: fired }) => fired.length > 0)]).toEqual([name, true])
    expect([name, own.some(({ exp_alerts: fired }) => fired.length === 0)]).toEqual([name, true])
  }
})

test('records are named level:metric:operations', () => {
  const records = rules.flatMap(({ record }) => record ?? [])
  expect(records.length).toBeGreaterThan(0)
  expect(records.filter(name => !/^job(_upstream)?:layover_\w+:(ratio_)?rate\d+[mh]$/.test(name))).toEqual([])
})

test.each(['check rules rules.yml', 'test rules rules_test.yml'])('promtool %s has nothing to say', command => {
  // undefined: not on this machine; .ci/setup installs it.
  expect(promtoolFaults(command.split(' '), { cwd: pathOf('deploy/prometheus') })).toEqual([])
})
