#!/usr/bin/env node
import { run } from './cli/program.ts'
import { systemTerminal } from './cli/terminal.ts'

// `layover config show | head` closes the pipe early; that is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

process.exitCode = await run(process.argv.slice(2), systemTerminal())
// Whatever still keeps the process alive after everything was closed must not keep it for ever.
setTimeout(() => process.exit(), 1000).unref()
