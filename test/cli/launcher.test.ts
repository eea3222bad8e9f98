import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const launcher = fileURLToPath(new URL('../../bin/layover.mjs', import.meta.url))

function launch(version: string): ReturnType<typeof spawnSync> {
  const pretend = `data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"${version}"}})`
  return spawnSync(process.execPath, ['--import', pretend, launcher, 'version'], { encoding: 'utf8' })
}

test.each(['20.20.2', '24.14.9'])('on Node %s it says what is missing, in one line', version => {
  const { status, stdout, stderr } = launch(version)
  expect(status).toBe(1)
  expect(stdout).toBe('')
  expect(stderr).toMatch(/^layover needs Node 24\.15 or newer, this is v\S+\. It comes with .*npm ci --include=dev\n$/)
})

test.each(['24.15.0', '26.10.0', '27.0.0'])('on Node %s it runs', version => {
  expect(launch(version)).toMatchObject({ status: 0, stdout: expect.stringMatching(/^layover \d/) })
})
