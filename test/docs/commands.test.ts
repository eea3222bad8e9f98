import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { layover } from '../cli/process.ts'
import { type Command, commandsOf, commandsOfPages, root, wordsOf } from './commands.ts'

/**
 * How a command of the pages is run: here; or by a test that is named, because it needs more around it; or not at all, and why. The
 * first rule that fits counts.
 */
type Rule = { readonly fits: RegExp } & (
  | { readonly run: (command: string) => Promise<void> }
  | { readonly by: string; readonly saying: string }
  | { readonly cannot: string }
)

const noEngine = 'there is no container engine on the machines of the tests'
const noCluster = 'there is no cluster'
const noSystemd = 'systemd does not run as the first process of the machines of the tests'

const rules: readonly Rule[] = [
  { fits: /^npm ci$/, by: '.ci/run', saying: 'npm ci && npm run verify' },
  { fits: /^npm run verify$/, by: '.ci/run', saying: 'npm ci && npm run verify' },
  { fits: /^npm start$/, by: 'test/cli/npm.test.ts', saying: 'npm start' },
  { fits: /^npm run demo -- --stay$/, by: 'test/cli/demo.test.ts', saying: '--stay' },
  { fits: /^npm run (check|bench|dashboards|screenshots)\b/, run: isScript },
  { fits: /^skopeo inspect --tls-verify=false docker:/, by: 'test/real/pulls.test.ts', saying: 'skopeo' },
  { fits: /^(layover|npm run -s layover --|npx layover) mirror /, run: succeeds },
  { fits: /^layover node install /, run: inAnotherRoot },
  { fits: /^layover config init$/, run: succeeds },
  { fits: /^layover config (check|show|schema)$/, run: succeeds },
  {
    fits: /^(layover|npm run -s layover --) stats\b/,
    by: 'test/cli/stats.test.ts',
    saying: "layover(['stats', '--since'",
  },
  { fits: /^layover reindex /, by: 'test/cli/reindex.test.ts', saying: "'reindex'" },
  { fits: /^kubectl kustomize /, run: renders },
  { fits: /^docker /, cannot: noEngine },
  { fits: /^kubectl /, cannot: noCluster },
  { fits: /^(systemctl|journalctl|install -m) /, cannot: noSystemd },
  { fits: /^curl -f http:\/\/127\.0\.0\.1:5001\//, by: 'test/edge/admin.test.ts', saying: '/readyz' },
]

const ruleOf = ({ text }: Command): Rule | undefined => rules.find(({ fits }) => fits.test(text))

async function isScript(command: string): Promise<void> {
  const [, , script = ''] = wordsOf(command)
  const { scripts } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { scripts: Record<string, string> }
  expect(Object.keys(scripts)).toContain(script)
}

/** `layover …` in an empty directory ends with 0 and says something. */
async function succeeds(command: string): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'layover-docs-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  const args = wordsOf(command.replace(/^(npm run -s layover --|npx layover|layover) /, ''))
  const { code, out, err } = await layover(args, { cwd: directory })
  expect({ command, code, err }).toEqual({ command, code: 0, err: expect.any(String) })
  expect(`${out}${err}`).not.toBe('')
}

/** Not into this machine's own /etc. */
async function inAnotherRoot(command: string): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'layover-docs-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  await succeeds(`${command} --root ${directory}`)
  expect(existsSync(join(directory, '_default/hosts.toml'))).toBe(true)
}

async function renders(command: string): Promise<void> {
  // kubectl, or Debian 13's where there is none.
  expect(execFileSync(`${root}.ci/debian13`, ['run', ...wordsOf(command)], { cwd: root, encoding: 'utf8' })).toContain(
    'kind: ',
  )
}

describe('commands of the pages', () => {
  const commands = commandsOfPages()

  test('are found, and each is run here, by a test that is named, or it is said why not', () => {
    expect(commands.length).toBeGreaterThan(25)
    expect(commands.filter(command => ruleOf(command) === undefined)).toEqual([])
  })

  test('no rule is left over', () => {
    const unused = rules.filter(rule => !commands.some(command => ruleOf(command) === rule))
    expect(unused).toEqual([])
  })

  test('the tests that are named exist and do what is said of them', () => {
    for (const { by, saying } of rules.filter(rule => 'by' in rule)) {
      expect([by, existsSync(`${root}${by}`)]).toEqual([by, true])
      expect(readFileSync(`${root}${by}`, 'utf8')).toContain(saying)
    }
  })

  test.each(commands.filter(command => 'run' in (ruleOf(command) ?? {})).map(({ page, text }) => [page, text]))(
    '%s: %s',
    async (page, text) => {
      const rule = ruleOf({ page, text })
      await expect(
        rule && 'run' in rule ? rule.run(text) : Promise.reject(new Error('no rule')),
      ).resolves.toBeUndefined()
    },
  )
})

test('a block with prompts has output, one without has none; comments and joined lines are understood', () => {
  const page =
    '```sh\n# first\na --b  # why\nc \\\n  -d && e\n```\n\n```console\n$ f\noutput\n```\n```yaml\ng: h\n```\n'
  expect(commandsOf(page)).toEqual(['a --b', 'c -d', 'e', 'f'])
})
