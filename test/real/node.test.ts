import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { expect, it } from 'vitest'
import { startContainerd } from './harness/containerd.ts'
import { run } from './harness/process.ts'
import { images } from './harness/samples.ts'
import { anonymousOrigin, layoverBefore, upstreamName } from './harness/setup.ts'

const main = resolve(import.meta.dirname, '../../src/main.ts')
const node = (...args: string[]) => run(process.execPath, [main, 'node', ...args])

it('containerd pulls through Layover from node install on, and no longer after node uninstall', async () => {
  await using undo = new AsyncDisposableStack()
  const origin = await anonymousOrigin()
  undo.defer(() => origin.close())
  const layover = await layoverBefore(origin)
  undo.defer(() => layover.close())
  const containerd = await startContainerd()
  undo.defer(() => containerd.close())
  const root = containerd.hostsDirectory
  /** How a pull looks that does not go through Layover: the name resolves nowhere. */
  const direct = { code: 1, stderr: expect.stringContaining(`lookup ${upstreamName}`) as string }
  const [first, second] = images.map(({ repository, tag, image }) => ({
    reference: `${upstreamName}/${repository}:${tag}`,
    digest: image.top.digest,
  }))
  if (first === undefined || second === undefined) throw new Error('two samples are needed')

  const foreign = 'server = "https://registry.invalid"\r\n# kept as it is, without an end of line'
  await mkdir(join(root, 'registry.invalid'))
  await writeFile(join(root, 'registry.invalid/hosts.toml'), foreign)

  expect(await containerd.pull(first.reference, '--all-platforms')).toMatchObject(direct)

  expect(await node('install', '--url', layover.url, '--root', root)).toMatchObject({ code: 0, stderr: '' })
  const pulled = await containerd.pull(first.reference, '--all-platforms')
  expect([pulled.code, (await containerd.images()).get(first.reference)]).toEqual([0, first.digest])

  // For one registry, and with nothing to fall back to.
  const chosen = ['--upstream', upstreamName, '--upstream', 'registry.invalid', '--air-gapped']
  expect(await node('install', '--url', layover.url, '--root', root, ...chosen)).toMatchObject({
    code: 3,
    stderr: expect.stringContaining(`left alone ${root}/registry.invalid/hosts.toml`),
  })
  expect((await readdir(root)).sort()).toEqual(['registry.invalid', upstreamName])
  expect((await containerd.pull(second.reference, '--all-platforms')).code).toBe(0)

  expect(await node('uninstall', '--root', root)).toMatchObject({ code: 0, stderr: '' })
  expect(await containerd.pull(second.reference, '--all-platforms')).toMatchObject(direct)
  expect(await readdir(root)).toEqual(['registry.invalid'])
  expect(await readFile(join(root, 'registry.invalid/hosts.toml'), 'utf8')).toBe(foreign)
}, 60_000)
