#!/usr/bin/env node
import { existsSync, mkdirSync } from 'node:fs'
import { enableCompileCache } from 'node:module'
import { homedir } from 'node:os'
import { join } from 'node:path'

// File reads share this pool with fsync and name look-ups, and a slow disk must not hold up the fast parts. Four is Node's default; it is read
// at the pool's first use, which comes later than this.
process.env.UV_THREADPOOL_SIZE ??= '16'

// Compiled code is kept from start to start: that saves time and the 25 MiB of the type stripper. In a directory of our own user, because who can write
// to it decides what is run; where there is none, nothing is kept. (mkdir with `recursive` never returns for some paths, such as below /proc.)
if (process.env.NODE_COMPILE_CACHE === undefined) {
  try {
    // A user without an entry in /etc/passwd has no home; asking for it throws.
    const home = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')
    if (!existsSync(home)) mkdirSync(home)
    enableCompileCache(join(home, 'layover'))
  } catch {
    // A slower start.
  }
}

const { run } = await import('./cli/program.ts')
const { systemTerminal } = await import('./cli/terminal.ts')

// `layover config show | head` closes the pipe early; that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

process.exitCode = await run(process.argv.slice(2), systemTerminal())
// Whatever still keeps the process alive after everything was closed must not keep it for ever.
setTimeout(() => process.exit(), 1000).unref()
