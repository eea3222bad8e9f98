import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { run, scratch } from '../real/harness/process.ts'
import { configOf, read } from './settings.ts'

const unit = read('deploy/systemd/layover.service')
let directory: Awaited<ReturnType<typeof scratch>>
let path = ''

beforeAll(async () => {
  directory = await scratch('systemd')
  path = join(directory.path, 'layover.service')
  // The Node that is here: that of the unit need not be.
  await writeFile(path, unit.replace('/usr/bin/node', process.execPath))
})
afterAll(() => directory.remove())

const valueOf = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1] ?? ''

test('systemd-analyze verify has nothing to say', async () => {
  expect(await run('systemd-analyze', ['verify', '--man=no', path])).toEqual({ code: 0, stdout: '', stderr: '' })
})

test('systemd-analyze security: exposure below 1.5 of 10', async () => {
  const { code, stdout } = await run('systemd-analyze', [
    'security',
    '--offline=true',
    '--threshold=15',
    '--no-pager',
    path,
  ])
  expect([code, stdout]).toEqual([
    0,
    expect.stringMatching(/Overall exposure level for layover\.service: (0|1)\.\d OK/),
  ])
})

test('it sets what the configuration knows, and its data is in the state directory', () => {
  const variables = Object.fromEntries(
    valueOf('Environment')
      .split(' ')
      .map(each => each.replaceAll('%S', '/var/lib').split('=') as [string, string]),
  )
  expect(configOf(variables).dataDir).toBe(`/var/lib/${valueOf('StateDirectory')}`)
})

test('a stop waits longer than running layers are waited for', () => {
  expect(Number.parseInt(valueOf('TimeoutStopSec'), 10) * 1000).toBeGreaterThan(configOf({}).drainMs + 5000)
})
