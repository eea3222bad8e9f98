import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { allKeys } from '../../src/config/keys.ts'
import { configJsonSchema } from '../../src/config/schema.ts'
import { variableOf } from '../../src/config/environment.ts'
import { starterFile } from '../../src/config/starter.ts'
import { describeConfig } from '../../src/config/show.ts'
import { read } from './reading.ts'

const repository = new URL('../../', import.meta.url)

test('config.schema.json is up to date: layover config schema > config.schema.json', () => {
  const committed: unknown = JSON.parse(readFileSync(new URL('config.schema.json', repository), 'utf8'))
  expect(committed).toEqual(configJsonSchema())
})

test('docs/config.md has every key with its variable and its default', () => {
  const page = readFileSync(new URL('docs/config.md', repository), 'utf8')
  const rows = page.split('\n')
  const missing = allKeys().filter(({ path, default: value }) => {
    const shown = value === undefined ? '–' : `\`${JSON.stringify(value).replaceAll('"', '')}\``
    return !rows.some(row => row.includes(`| ${shown} | \`${variableOf(path)}\` |`))
  })
  expect(missing).toEqual([])
})

test('the schema is draft-07, refuses unknown keys, and describes every key', () => {
  expect(configJsonSchema()).toMatchObject({
    $schema: 'http://json-schema.org/draft-07/schema#',
    additionalProperties: false,
  })
  expect(allKeys().filter(({ description }) => description === '')).toEqual([])
})

test('the starter file is a valid configuration that changes no default but where dataDir starts', () => {
  const { config } = read(starterFile('layover.schema.json'))
  const { config: defaults } = read('')
  expect(config).toEqual({ ...defaults, dataDir: '/etc/layover/data' })
  expect(starterFile('layover.schema.json')).toMatch(/^# yaml-language-server: \$schema=layover\.schema\.json\n/)
})

test('the example of an upstream in the starter file is valid when its comment signs are taken away', () => {
  const [, block = ''] = /\n( {2}# registry\.example\.com:\n(?: {2}# .*\n)+)/.exec(starterFile('s')) ?? []
  const files = { '/run/secrets/registry': 'p', '/etc/ssl/own.pem': '-----BEGIN CERTIFICATE-----' }
  const { config } = read(`upstreams:\n${block.replaceAll(/^ {2}# /gm, '  ')}`, { files })
  expect(config.upstreams.at(-1)).toMatchObject({
    name: 'registry.example.com',
    mirrors: ['https://mirror.example.com'],
    redirectHosts: ['minio.internal:9000'],
  })
})

test('T-10: what is shown has no secret, says where values come from, and can be read again', () => {
  const canary = 'hunter2canary'
  const yaml = `
drain: 1m
upstreams:
  quay.io: {username: u, password: ${canary}, proxy: "http://u:${canary}@proxy.example.com:3128/?k=${canary}", aliases: [q.io]}
  nvcr.io: false
`
  const loaded = read(yaml, {
    env: { LAYOVER_LISTEN: ':7', LAYOVER_UPSTREAMS_GHCR_IO_USERNAME: 'g', LAYOVER_UPSTREAMS_GHCR_IO_PASSWORD: canary },
  })
  const shown = describeConfig(loaded)
  expect(shown).not.toContain(canary)
  expect(shown).toContain('listen: :7 # LAYOVER_LISTEN\n')
  expect(shown).toContain('drain: 1m # /etc/layover/layover.yaml:2:8\n')
  expect(shown).toMatch(/password: "?\*\*\*"? # LAYOVER_UPSTREAMS_GHCR_IO_PASSWORD\n/)
  expect(shown).not.toContain('nvcr.io')
  const again = read(`${shown}\n`, { env: {} }).config
  expect(
    again.upstreams
      .filter(({ name }) => name !== 'nvcr.io')
      .map(({ name, credentials, aliases }) => [name, credentials?.kind, aliases]),
  ).toEqual(loaded.config.upstreams.map(({ name, credentials, aliases }) => [name, credentials?.kind, aliases]))
})
