import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { resolve } from 'node:path'
import { expect, it } from 'vitest'
import { startContainerd } from './harness/containerd.ts'
import { runOk, until } from './harness/process.ts'
import { images } from './harness/samples.ts'
import { anonymousOrigin, layoverBefore, upstreamName } from './harness/setup.ts'

const main = resolve(import.meta.dirname, '../../src/main.ts')

/** The hosts.toml that `layover mirror containerd --air-gapped` prints, to the letter. */
async function printedHostsToml(url: string): Promise<string> {
  const printed = await runOk(process.execPath, [main, 'mirror', 'containerd', '--url', url, '--air-gapped'])
  const [, text] = /^# ── \/etc\/containerd\/certs\.d\/_default\/hosts\.toml\n([\s\S]*?)\n# ── /.exec(printed) ?? []
  if (text === undefined) throw new Error(`no _default/hosts.toml in: ${printed}`)
  return text
}

/** A registry that Layover does not know, and how often anybody connected to it. */
async function startStranger(): Promise<{ name: string; connections(): number; close(): void }> {
  let connections = 0
  const server = createServer((_, response) => void response.writeHead(404).end())
  server.on('connection', () => connections++)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    // containerd asks a registry on loopback by plain http, so that nothing but hosts.toml keeps it from this one.
    name: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => connections,
    close: () => void server.close(),
  }
}

it('containerd takes the air-gapped hosts.toml: it pulls through Layover, and asks nobody else', async () => {
  await using undo = new AsyncDisposableStack()
  const stranger = await startStranger()
  undo.defer(() => stranger.close())
  const origin = await anonymousOrigin()
  undo.defer(() => origin.close())
  const layover = await layoverBefore(origin)
  undo.defer(() => layover.close())
  const containerd = await startContainerd()
  undo.defer(() => containerd.close())

  const image = `${stranger.name}/team/app:1`
  expect((await containerd.pull(image)).code).not.toBe(0)
  // Proves the next zero: without hosts.toml it is asked.
  expect(stranger.connections()).toBeGreaterThan(0)
  const before = stranger.connections()

  await containerd.configureHost('_default', await printedHostsToml(layover.url))
  for (const { repository, tag, image: sample } of images) {
    const reference = `${upstreamName}/${repository}:${tag}`
    const { code, stderr } = await containerd.pull(reference, '--all-platforms')
    // Its progress display sometimes says `failed to get content info: context canceled` at the end of a pull that went well.
    expect([code, stderr.includes('hosts.toml')]).toEqual([0, false])
    expect((await containerd.images()).get(reference)).toBe(sample.top.digest)
  }

  const { code, stderr } = await containerd.pull(image)
  expect([code, stderr]).toEqual([1, expect.stringContaining('not found')])
  await until(() => layover.output().includes(stranger.name))
  expect(stranger.connections()).toBe(before)
}, 60_000)
