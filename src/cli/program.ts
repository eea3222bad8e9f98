import { Command, CommanderError, Option } from 'commander'
import { describeError } from '../log/redact.ts'
import { exitCode } from './exit.ts'
import { clientNames } from '../mirror/client.ts'
import type { MirrorCommandOptions } from './mirror.ts'
import type { NodeInstallOptions, NodeUninstallOptions } from './node.ts'
import { addConfigOptions, type ConfigOptions } from './options.ts'
import type { ReindexCommandOptions } from './reindex.ts'
import type { StatsOptions } from './stats.ts'
import type { Terminal } from './terminal.ts'
import { describeVersion } from './version.ts'

/**
 * The command line. Takes the arguments after the program's name, gives the exit code: 0 ok, 1 configuration or usage,
 * 2 failed while running, 3 as `exit.ts` says. What a command needs is loaded when it runs, so that `version` stays quick.
 */
export async function run(args: readonly string[], terminal: Terminal): Promise<number> {
  let code: number = exitCode.ok
  const done = (result: number): void => {
    code = result
  }
  try {
    await buildProgram(terminal, done).parseAsync([...args], { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCode.ok : exitCode.usage
    terminal.err(`layover: ${describeError(error)}\n`)
    return exitCode.failed
  }
}

function buildProgram(terminal: Terminal, done: (code: number) => void): Command {
  const program = new Command('layover')
    .description(
      'A pull-through cache for container registries: one upstream download per blob, verified, for everyone who waits.',
    )
    .version(describeVersion({}), '-V, --version', 'print the version')
    .exitOverride()
    .configureOutput({ writeOut: terminal.out, writeErr: terminal.err })
    .showHelpAfterError('(layover --help lists the commands)')
    .addHelpText('after', examples)
  addServe(program, terminal, done)
  addConfig(program, terminal, done)
  addMirror(program, terminal, done)
  addNode(program, terminal, done)
  addHealthcheck(program, terminal, done)
  addDoctor(program, terminal, done)
  addDemo(program, terminal, done)
  addReindex(program, terminal, done)
  addStats(program, terminal, done)
  addVersion(program, terminal)
  return program
}

const examples = `
Examples:
  layover serve                                     run with the built-in registries, keep blobs in ./data
  layover serve --listen :5000 --max-bytes 200GiB
  layover config init && layover config check       start a configuration file, look it over
  layover mirror containerd --url http://cache:5000 what to write on the nodes
  layover node install --url http://10.0.0.5:5000   write it, on the node itself
  layover stats --last 30d                          what a running one has saved
  layover demo                                      see it work, without any cluster

Exit codes: 0 ok; 1 configuration or usage, or not healthy (healthcheck); 2 failed while running; 3 the demo broke a promise, the doctor
found something wrong, or somebody else's file is in the way (node install).
`

type Add = (program: Command, terminal: Terminal, done: (code: number) => void) => void

const addServe: Add = (program, terminal, done) => {
  addConfigOptions(program.command('serve').description('run the registry until SIGTERM or SIGINT'))
    .addHelpText(
      'after',
      `
Every setting has a key in the file, a variable (LAYOVER_LISTEN, LAYOVER_STORAGE_MAX_BYTES, …) and a default; the flags above win over
variables, variables over the file. docs/config.md lists them all.

SIGTERM or SIGINT: no new connections, running responses have the time that "drain" gives them. A second signal ends at once.
`,
    )
    .action(async (options: ConfigOptions) => {
      const { serve } = await import('./serve.ts')
      done(await serve(options, terminal))
    })
}

const addConfig: Add = (program, terminal, done) => {
  const config = program.command('config').description('check, show, describe or start a configuration')
  addConfigOptions(config.command('check').description('say whether serve would accept this configuration')).action(
    async (options: ConfigOptions) => {
      const { checkConfig } = await import('./config.ts')
      done(checkConfig(options, terminal))
    },
  )
  addConfigOptions(
    config.command('show').description('print what is in effect and where it comes from; secrets are ***'),
  ).action(async (options: ConfigOptions) => {
    const { showConfig } = await import('./config.ts')
    done(showConfig(options, terminal))
  })
  config
    .command('schema')
    .description('print the JSON Schema (draft-07) of the file, for editors')
    .action(async () => {
      const { printSchema } = await import('./config.ts')
      done(printSchema(terminal))
    })
  config
    .command('init')
    .description('write a commented layover.yaml and its schema; never replaces a layover.yaml')
    .argument('[file]', 'where to write', 'layover.yaml')
    .action(async (file: string) => {
      const { initConfig } = await import('./config.ts')
      done(initConfig(file, terminal))
    })
}

const addHealthcheck: Add = (program, terminal, done) => {
  addConfigOptions(program.command('healthcheck').description('ask a running Layover for /livez; 0 healthy, 1 not'), [
    'admin',
  ])
    .option('--url <url>', 'ask this instead of the configured admin address, such as http://127.0.0.1:5001/livez')
    .action(async (options: ConfigOptions & { url?: string }) => {
      const { healthcheck } = await import('./healthcheck.ts')
      done(await healthcheck(options, terminal))
    })
}

const addDoctor: Add = (program, terminal, done) => {
  addConfigOptions(
    program
      .command('doctor')
      .description('check disk, addresses, upstreams, Redis, bucket and replicas, and say what to do; 0 fine, 3 not'),
  )
    .option('--json', 'as one JSON object')
    .action(async (options: ConfigOptions & { json?: boolean }) => {
      const { doctor } = await import('./doctor.ts')
      done(await doctor({ ...options, isTerminal: process.stdout.isTTY }, terminal))
    })
}

const addReindex: Add = (program, terminal, done) => {
  addConfigOptions(
    program
      .command('reindex')
      .description('fill Redis again with the manifests, tags and rights that rest in the bucket'),
  )
    .option('--after <key>', 'go on after this key, as an earlier run printed it')
    .addHelpText(
      'after',
      `
Replicas may serve meanwhile; they also bring back by themselves what they are asked for. Running it again changes nothing.
`,
    )
    .action(async (options: ReindexCommandOptions) => {
      const { reindexRedis } = await import('./reindex.ts')
      done(await reindexRedis(options, terminal))
    })
}

const addStats: Add = (program, terminal, done) => {
  addConfigOptions(program.command('stats').description('print what a running Layover has saved'), ['admin'])
    .option('--url <url>', 'ask this admin address instead of the configured one, such as http://127.0.0.1:5001')
    .option('--last <duration>', 'only of the last hours or days, such as 24h or 30d')
    .option('--since <date>', 'only since a date, such as 2026-11-01')
    .option('--json', 'as one JSON object')
    .addHelpText(
      'after',
      `
Without a period: since the totals began. Figures are kept by hour for three days, then by day for a year, then by month; a period begins with the
hour, day or month that its first moment lies in. Replicas with one Redis tell what all of them saved. docs/savings.md has the arithmetic.
`,
    )
    .action(async (options: StatsOptions) => {
      const { stats } = await import('./stats.ts')
      done(await stats(options, terminal))
    })
}

const addVersion = (program: Command, terminal: Terminal): void => {
  program
    .command('version')
    .description('print the version')
    .option('--json', 'as one JSON object')
    .action((options: { json?: boolean }) => {
      terminal.out(`${describeVersion(options)}\n`)
    })
}

const addDemo: Add = (program, _terminal, done) => {
  program
    .command('demo')
    .description('a few seconds that show what Layover does: needs no cluster, no network and no configuration')
    .option('--stay', 'afterwards keep the status page of the run, until Ctrl-C')
    .action(async (options: { stay?: boolean }) => {
      const { runDemo } = await import('./demo.ts')
      const stop = new AbortController()
      process.once('SIGINT', () => stop.abort(new Error('interrupted')))
      // Its own answer is 0 or 1: whether every promise held.
      done(
        (await runDemo({ signal: stop.signal, stay: options.stay === true })) === 0
          ? exitCode.ok
          : exitCode.checkFailed,
      )
    })
}

const addMirror: Add = (program, terminal, done) => {
  addConfigOptions(
    program
      .command('mirror')
      .description('print what to write on a node, so that its container runtime pulls through Layover')
      .argument('<client>', `one of ${clientNames.join(', ')}`),
    ['listen'],
  )
    .option('--url <url>', 'how the nodes reach the registry, such as http://cache.example.com:5000')
    .addOption(
      new Option('--upstream <name>', 'only for this registry (repeatable)').argParser(collect).default([], 'all'),
    )
    .option('--containerd-version <x.y>', 'version of containerd on the nodes, such as 1.7 or 2.2')
    .option('--air-gapped', 'never fall back to the registry itself')
    .option('--ca <file>', 'path on the node of the authority that signed the certificate of --url')
    .addHelpText(
      'after',
      `
Nothing is written: the output shows each file under its path. Without --url, the address is made of "listen" and this machine's name.

  layover mirror containerd --url http://cache:5000 --containerd-version 2.1
  layover mirror podman --url https://cache.example.com --upstream docker.io --upstream quay.io
  layover mirror k3s --url http://10.0.0.5:5000 --air-gapped
`,
    )
    .action(async (client: string, options: MirrorCommandOptions) => {
      const { mirror } = await import('./mirror.ts')
      done(mirror(client, options, terminal))
    })
}

const addNode: Add = (program, terminal, done) => {
  const node = program
    .command('node')
    .description('put the mirror configuration of this node in place, and take it back')
  const place = (command: Command): Command =>
    command
      .option('--client <name>', 'whose files: containerd, docker, podman or crio', 'containerd')
      .option('--root <directory>', 'where they go (default: where the client reads, such as /etc/containerd/certs.d)')
      .option('--dry-run', 'say what would be done, and do nothing')
  addConfigOptions(place(node.command('install').description('write files that make pulls go through Layover')), [])
    .requiredOption('--url <url>', 'how this node reaches the registry, such as http://10.0.0.5:5000')
    .option('--resolve', 'write the address that the host of --url has here, for nodes that do not know the name')
    .addOption(
      new Option('--upstream <name>', 'only for this registry (repeatable)').argParser(collect).default([], 'all'),
    )
    .option('--containerd-version <x.y>', 'version of containerd here, such as 1.7 or 2.2')
    .option('--containerd-config <file>', 'looked at, never written', '/etc/containerd/config.toml')
    .option('--air-gapped', 'never fall back to the registry itself')
    .option('--ca <file>', 'path here of the authority that signed the certificate of --url')
    .option('--hold', 'stay until SIGTERM, and write again what somebody removed')
    .option('--every <duration>', 'with --hold: how often to look', '10s')
    .option('--take-back', 'with --hold: remove the files at the end')
    .addHelpText(
      'after',
      `
Files that it did not write are never changed. Running it again changes nothing; with other options it removes its files that are no longer meant.

Exit codes: 0 all is in place; 1 usage; 2 a file could not be written; 3 somebody else's file is in the place of one.
`,
    )
    .action(async (options: NodeInstallOptions) => {
      const { installNode } = await import('./node.ts')
      done(await installNode(options, terminal))
    })
  place(node.command('uninstall').description('remove the files that install wrote, and no others'))
    .option('--hold', 'stay until SIGTERM afterwards, for a DaemonSet')
    .action(async (options: NodeUninstallOptions) => {
      const { uninstallNode } = await import('./node.ts')
      done(await uninstallNode(options, terminal))
    })
}

const collect = (name: string, names: readonly string[]): string[] => [...names, name]
