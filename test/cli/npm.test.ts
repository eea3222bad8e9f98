import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, onTestFinished, test } from 'vitest'
import { root } from '../docs/commands.ts'

test('npm start: the registry answers, and SIGTERM to what npm started ends all of it', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'layover-npm-'))
  onTestFinished(() => rmSync(dataDir, { recursive: true, force: true }))
  // Its own group: npm passes signals on in its own way, an operator's service manager signals the group.
  const child = spawn('npm', ['start', '--silent'], {
    cwd: root,
    env: {
      ...process.env,
      LAYOVER_DATA_DIR: dataDir,
      LAYOVER_LISTEN: '127.0.0.1:0',
      LAYOVER_ADMIN: '127.0.0.1:0',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  const closed = once(child, 'close')
  const { promise: ready, resolve } = Promise.withResolvers<Record<string, unknown>>()
  createInterface({ input: child.stdout }).on('line', line => {
    const said = JSON.parse(line) as Record<string, unknown>
    if (said['msg'] === 'ready') resolve(said)
  })
  const said = await ready
  const answer = await fetch(new URL('/v2/', String(said['registry'])))
  expect([answer.status, await answer.json()]).toEqual([200, {}])
  process.kill(-(child.pid ?? 0), 'SIGTERM')
  await closed
})
