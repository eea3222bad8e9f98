import pino from 'pino'
import { redactFields, redactText } from './redact.ts'

/** Fields and a message, or a message alone. Fields named `err` or `error` take any error. */
export type LogFunction = {
  (fields: object, message: string): void
  (message: string): void
}

/** The part of pino that is used here. Whatever goes in comes out without secrets (T-10), one JSON object per line (T-51). */
export interface Log {
  readonly trace: LogFunction
  readonly debug: LogFunction
  readonly info: LogFunction
  readonly warn: LogFunction
  readonly error: LogFunction
  /** A log that adds these fields to every line. */
  child(fields: object): Log
  isLevelEnabled(level: LogLevel): boolean
}

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error'

export type LogOptions = {
  readonly level: LogLevel | 'silent'
  /** Where lines go; default: standard output. */
  readonly stream?: { write(line: string): unknown }
}

/** A log of JSON lines with `level`, `time` (RFC 3339), `msg` and the given fields. */
export function createLog({ level, stream }: LogOptions): Log {
  const logger = pino(
    {
      level,
      // pid and hostname are the same on every line; whoever runs many replicas has them from the collector.
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
    },
    stream === undefined ? standardOutput() : { write: line => void stream.write(line) },
  )
  return redacting(logger)
}

/**
 * Lines leave together, at the latest after a fifth of a second and at the end of the process. A reader of our output that stands still
 * must not stop pulls: above 16 MiB lines are dropped.
 */
function standardOutput(): pino.DestinationStream {
  return pino.destination({
    fd: 1,
    sync: false,
    minLength: 8 * 1024,
    maxLength: 16 * 1024 * 1024,
    periodicFlush: 200,
  })
}

/** A log that writes nothing, for tests and for commands that do not serve. */
export function createSilentLog(): Log {
  return createLog({ level: 'silent', stream: { write() {} } })
}

function redacting(logger: pino.Logger): Log {
  const at =
    (level: LogLevel): LogFunction =>
    (fields: object | string, message?: string) => {
      if (!logger.isLevelEnabled(level)) return
      if (typeof fields === 'string') logger[level](redactText(fields))
      else logger[level](redactFields(fields), redactText(message ?? ''))
    }
  return {
    trace: at('trace'),
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: fields => redacting(logger.child(redactFields(fields))),
    isLevelEnabled: level => logger.isLevelEnabled(level),
  }
}
