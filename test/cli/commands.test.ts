import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { configJsonSchema } from '../../src/config/schema.ts'
import { version } from '../../src/version.ts'
import { layover } from './process.ts'

const canary = 'hunter2Canary4711'
let cwd = ''
beforeEach(() => {
  cwd = mkdtempSync(join(tmpdir(), 'layover-cli-'))
})
afterEach(() => rmSync(cwd, { recursive: true, force: true }))

describe('usage', () => {
  test('help names every command and the exit codes', async () => {
    const { code, out } = await layover(['--help'], { cwd })
    expect(code).toBe(0)
    for (const command of 'serve config mirror node healthcheck doctor demo reindex stats version'.split(' '))
      expect(out).toMatch(new RegExp(`^  ${command} `, 'm'))
    expect(out).toContain(
      'Exit codes: 0 ok; 1 configuration or usage, or not healthy (healthcheck); 2 failed while running; 3 the demo broke a promise, the doctor',
    )
  })

  test('a misspelt option or command is exit code 1, with a suggestion', async () => {
    const option = await layover(['serve', '--confg', 'x'], { cwd })
    expect([option.code, option.err]).toEqual([1, expect.stringContaining('(Did you mean --config?)')])
    const command = await layover(['sevre'], { cwd })
    expect([command.code, command.err]).toEqual([1, expect.stringContaining('(Did you mean serve?)')])
    expect((await layover([], { cwd })).code).toBe(1)
  })

  test('help shows no setting that a command does not use', async () => {
    const flagsOf = async (command: string): Promise<(string | undefined)[]> => {
      const { out } = await layover([command, '--help'], { cwd })
      return [...out.matchAll(/^  (?:-\w, )?(--[a-z-]+)/gm)].map(([, flag]) => flag)
    }
    expect(await flagsOf('healthcheck')).toEqual(['--config', '--admin', '--url', '--help'])
    const ofMirror = await flagsOf('mirror')
    expect(ofMirror).toEqual(expect.arrayContaining(['--config', '--listen', '--url', '--air-gapped']))
    expect(ofMirror).not.toEqual(expect.arrayContaining(['--max-bytes']))
    expect(ofMirror).toHaveLength(8)
  })

  test('version, for people and for machines', async () => {
    for (const asked of ['version', '--version', '-V'])
      expect(await layover([asked], { cwd })).toMatchObject({
        code: 0,
        out: expect.stringMatching(new RegExp(`^layover ${version} \\(node v.*\\)\n$`)),
      })
    expect(JSON.parse((await layover(['version', '--json'], { cwd })).out)).toMatchObject({
      version,
      node: process.version,
    })
  })
})

describe('config', () => {
  test('check says ok, a summary and the warnings', async () => {
    writeFileSync(join(cwd, 'layover.yaml'), `admin: :5001\nupstreams: {quay.io: {username: u, password: ${canary}}}\n`)
    const { code, out } = await layover(['config', 'check'], { cwd })
    expect(code).toBe(0)
    expect(out).toMatch(/^ok: layover\.yaml\n/)
    expect(out).toContain(
      'credentials are configured for quay.io: everything that these credentials can read is readable by whoever reaches 0.0.0.0:5000',
    )
    expect(out).toContain('the admin listener 0.0.0.0:5001 is not on loopback')
    expect(out).not.toContain(canary)
  })

  test('T-10: check says every problem and no secret, exit code 1', async () => {
    writeFileSync(
      join(cwd, 'layover.yaml'),
      `listen: 5000\nupstreams:\n  quay.io: {url: "https://u:${canary}@quay.io", pasword: ${canary}}\n`,
    )
    const { code, out, err } = await layover(['config', 'check'], { cwd, env: { LAYOVER_OFLINE: canary } })
    expect([code, out]).toEqual([1, ''])
    expect(err.trim().split('\n')).toEqual([
      'layover.yaml:1:9: listen: expected an address such as 127.0.0.1:5000, :5000 or [::1]:5000, got 5000',
      'layover.yaml:3:18: upstreams.quay.io.url: a URL holds no user name or password here: use username and passwordFile',
      expect.stringMatching(
        /^layover\.yaml:3:\d+: upstreams\.quay\.io\.pasword: no such setting, did you mean password\?$/,
      ),
      'LAYOVER_OFLINE: no such setting. Did you mean LAYOVER_OFFLINE?',
    ])
    expect(err).not.toContain(canary)
  })

  test('T-10: show has what is in effect without secrets, from every way in', async () => {
    writeFileSync(join(cwd, 'secret'), canary)
    const yaml = `upstreams:\n  quay.io: {username: u, password: ${canary}, proxy: "http://u:${canary}@p:1"}\n  ghcr.io: {username: u, passwordFile: secret}\n  gcr.io: {username: u, passwordEnv: GCR}\n`
    writeFileSync(join(cwd, 'layover.yaml'), yaml)
    const env = { GCR: canary, LAYOVER_UPSTREAMS_NVCR_IO_USERNAME: 'u', LAYOVER_UPSTREAMS_NVCR_IO_PASSWORD: canary }
    const { code, out } = await layover(['config', 'show', '--listen', ':7777'], { cwd, env })
    expect(code).toBe(0)
    expect(out).not.toContain(canary)
    expect(out).toContain('listen: :7777 # --listen\n')
    expect(out).toContain('passwordEnv: GCR # layover.yaml:4:')
  })

  test('schema prints the schema', async () => {
    expect(JSON.parse((await layover(['config', 'schema'], { cwd })).out)).toEqual(configJsonSchema())
  })

  test('init writes a file that check accepts, and never replaces one', async () => {
    const path = join(realpathSync(cwd), 'layover.yaml')
    expect(await layover(['config', 'init'], { cwd })).toMatchObject({
      code: 0,
      out: `wrote ${path} and layover.schema.json beside it\nnext: layover config check --config ${path}\n`,
    })
    expect((await layover(['config', 'check'], { cwd })).out).toMatch(/^ok: layover\.yaml\n/)
    expect(JSON.parse(readFileSync(join(cwd, 'layover.schema.json'), 'utf8'))).toEqual(configJsonSchema())
    writeFileSync(join(cwd, 'layover.yaml'), 'mine: true\n')
    const again = await layover(['config', 'init'], { cwd })
    expect([again.code, again.err]).toEqual([1, `${path} is there already: it was left alone\n`])
    expect(readFileSync(join(cwd, 'layover.yaml'), 'utf8')).toBe('mine: true\n')
  })
})

describe('healthcheck', () => {
  test.each([
    [200, 0],
    [503, 1],
  ])('an answer of %d is exit code %d', async (status, expected) => {
    const asked: (string | undefined)[] = []
    const server = createServer((request, response) => {
      asked.push(request.url)
      response.writeHead(status).end()
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    try {
      // "Every address" cannot be dialled: loopback is asked then.
      const { code } = await layover(['healthcheck'], { cwd, env: { LAYOVER_ADMIN: `0.0.0.0:${port}` } })
      expect([code, asked]).toEqual([expected, ['/livez']])
    } finally {
      server.close()
    }
  })

  test.each([
    ['127.0.0.1:5001', 'http:// is missing'],
    ['localhost:5001/livez', 'http:// is missing'],
    ['https://cache:5001', 'only http:// is asked'],
    ['http://', 'is no URL'],
  ])('--url %s says what is wrong with it, exit code 1', async (url, problem) => {
    expect(await layover(['healthcheck', '--url', url], { cwd })).toEqual({
      code: 1,
      out: '',
      err: `--url: ${problem}, expected a URL such as http://127.0.0.1:5001/livez\n`,
    })
  })

  test('T-10: a password in --url is not said', async () => {
    const { code, err } = await layover(['healthcheck', '--url', `http://u:${canary}@127.0.0.1:1/livez`], { cwd })
    expect([code, err]).toEqual([1, expect.stringMatching(/^not healthy: /)])
    expect(err).not.toContain(canary)
  })

  test('nobody there is exit code 1', async () => {
    const { code, err } = await layover(['healthcheck', '--admin', '127.0.0.1:1'], { cwd })
    expect([code, err]).toEqual([1, expect.stringMatching(/^not healthy: connect ECONNREFUSED 127\.0\.0\.1:1\n$/)])
  })
})
